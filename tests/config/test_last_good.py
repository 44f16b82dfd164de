"""A fault in params.yaml ends no night: what runs unattended goes by the last good one."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoetagger.config.last_good import FILE, load_or_last_good
from shoetagger.config.settings import Settings
from shoetagger.config.strict import ParamsError
from shoetagger.ops.installation import opened

OURS = (Path(__file__).parents[2] / "params.yaml").read_text(encoding="utf-8")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    repo, home = tmp_path / "repo", tmp_path / "home"
    repo.mkdir()
    home.mkdir()
    (repo / "params.yaml").write_text(OURS, encoding="utf-8")
    return Settings.from_environment({"SHOETAGGER_REPO": str(repo), "SHOETAGGER_HOME": str(home)})


FAULTS = {
    "a typo": (OURS.replace("  shards:", "  shard:").encode(), "unknown key tag.shard"),
    "no YAML": (b"tag: [", "is not valid YAML"),
    "no UTF-8": (OURS.encode() + b"# \xe9\n", "cannot be read as UTF-8"),
    "empty": (b"", "None is not a mapping"),
    "a cron line of hour 25": (OURS.replace("0 2 *", "0 25 *").encode(), "tag.schedule"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_runs_unattended_goes_by_the_last_good_params(settings: Settings, fault: str) -> None:
    changed = OURS.replace("shards: 4", "shards: 3")
    settings.params_file.write_text(changed, encoding="utf-8")
    assert load_or_last_good(settings)[1] is None
    broken, reason = FAULTS[fault]
    settings.params_file.write_bytes(broken)
    params, fault = load_or_last_good(settings)
    assert params.tag.shards == 3
    assert fault is not None
    assert reason in fault
    with opened(settings, unattended=True) as here:
        assert (here.params.tag.shards, here.params_fault) == (3, fault)
    with pytest.raises(ParamsError, match=reason), opened(settings):
        """What a person starts is refused."""
    settings.params_file.write_text(OURS, encoding="utf-8")
    assert load_or_last_good(settings)[0].tag.shards == 4
    assert (settings.home / FILE).read_text(encoding="utf-8") == OURS


def test_a_missing_file_is_a_fault_too(settings: Settings) -> None:
    load_or_last_good(settings)
    settings.params_file.unlink()
    assert "is missing" in str(load_or_last_good(settings)[1])


def test_without_a_good_copy_the_fault_is_raised(settings: Settings) -> None:
    settings.params_file.write_text("tag: [", encoding="utf-8")
    with pytest.raises(ParamsError, match=r"repo/params\.yaml is not valid YAML"):
        load_or_last_good(settings)
    (settings.home / FILE).write_text("of: another age", encoding="utf-8")
    with pytest.raises(ParamsError, match=r"repo/params\.yaml is not valid YAML"):
        load_or_last_good(settings)


def test_a_state_that_cannot_be_written_is_a_warning(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    (settings.home / FILE).mkdir()
    assert load_or_last_good(settings)[1] is None
    assert "no copy of params.yaml is kept" in caplog.text
