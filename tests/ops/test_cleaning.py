"""`shoetagger clean`: what it frees, and what it leaves alone."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
import yaml
from helpers.stores import BLUE, BOOT, NIGHT, RED, add_bundles, make_live, migrated, tag
from typer.testing import CliRunner

from shoetagger.cli.app import app
from shoetagger.config.settings import PREVIEWS, Settings
from shoetagger.ops.cleaning import Cleaned, clean
from shoetagger.ops.environment import airflow_home, task_logs
from shoetagger.ops.installation import opened
from shoetagger.store.store import Store

ROOT = Path(__file__).parents[2]
WEEKS_AGO = time.time() - 110 * 24 * 3600


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """An installation whose repo is no DVC repo: nothing here reaches the cache of this one."""
    repo = tmp_path / "repo"
    repo.mkdir()
    document = yaml.safe_load((ROOT / "params.yaml").read_text())
    document["keep"] |= {"rollbacks": 0, "checkouts": 1}
    (repo / "params.yaml").write_text(yaml.safe_dump(document))
    (repo / "dvc.yaml").write_text("stages: {}")
    for name, value in (("REPO", repo), ("HOME", tmp_path / "home"), ("INBOX", tmp_path)):
        monkeypatch.setenv(f"SHOETAGGER_{name}", str(value))
    settings = Settings.from_environment()
    settings.home.mkdir()
    with Store(migrated(settings.store_url)) as store:
        add_bundles(store)
        make_live(store, "color", RED)
        make_live(store, "style", BOOT)
        tag(store, "a.jpg", "b.jpg")
        make_live(store, "color", BLUE)
        tag(store, "c.jpg", digest=BLUE)
        old = store.runs.start("night", {"color": RED}, NIGHT.replace(year=2020))
        store.runs.finish(old, "done", {}, NIGHT)
    return settings


def aged(path: Path, content: str = "12345") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    for place in (path, path.parent):
        os.utime(place, (WEEKS_AGO, WEEKS_AGO))
    return path


def cleaned(settings: Settings, *, dry_run: bool) -> dict[str, Cleaned]:
    with opened(settings) as here:
        return {row.kind: row for row in clean(here, dry_run=dry_run)}


def test_what_is_kept_stays_and_the_rest_is_told_first_and_then_deleted(settings: Settings) -> None:
    live, old = aged(settings.bundles / BLUE / "x"), aged(settings.bundles / RED / "x")
    new = settings.bundles / ("5" * 64)
    new.mkdir()
    log = aged(task_logs(settings) / "dag_id=clean" / "1.log")
    kept = task_logs(settings) / "dag_id=clean" / "2.log"
    kept.write_text("new")
    preview = aged(settings.published / PREVIEWS / "ab" / "old.jpg")
    recent = preview.with_name("new.jpg")
    recent.write_text("new")
    gone = aged(task_logs(settings) / "dag_id=other" / "1.log")
    for name in ("one", "two"):
        aged(settings.checkouts / name / "file")
    os.utime(settings.checkouts / "two")

    def there() -> list[Path]:
        places = (settings.bundles, settings.checkouts, task_logs(settings))
        return [path for place in places for path in place.rglob("*") if path.suffix != ".lock"]

    before = there()
    planned = cleaned(settings, dry_run=True)
    assert there() == before
    found = cleaned(settings, dry_run=False)
    assert {kind: (row.number, row.size) for kind, row in found.items()} == {
        kind: (row.number, row.size) for kind, row in planned.items()
    }
    numbers = {kind: (row.number, row.size) for kind, row in found.items()}
    assert numbers["bundles"] == (1, 5)
    assert numbers["checkouts"] == (1, 5)
    assert numbers["previews"] == (1, 5)
    assert not preview.exists()
    assert recent.exists()
    assert numbers["logs of tasks"] == (2, 10)
    assert live.exists()
    assert new.exists()
    assert kept.exists()
    assert not old.parent.exists()
    assert not log.exists()
    assert not gone.parent.exists()
    assert [path.name for path in settings.checkouts.iterdir() if path.is_dir()] == ["two"]
    # The two pictures that the live version has not tagged show the earlier one's tags.
    assert numbers["predictions"] == (0, 0)
    assert "left alone: DVC" in found["files in DVC's cache"].note
    assert found["rows of Airflow"].note == "no Airflow of ours"
    assert cleaned(settings, dry_run=False)["bundles"].number == 0


def test_the_command_says_what_a_rollback_would_have_to_tag_again(settings: Settings) -> None:
    with Store(settings.store_url) as store:
        tag(store, "d.jpg", digest=RED)
        for name in ("a.jpg", "b.jpg", "d.jpg"):
            tag(store, name, digest=BLUE)
    ran = CliRunner().invoke(app, ["clean", "--dry-run"])
    assert ran.exit_code == 0, ran.output
    assert "predictions: 3, 0.0 MB (after a rollback to them, tagged again: color version 1)" in (
        ran.output
    )


@pytest.mark.slow
def test_rows_of_our_own_airflow_are_cleaned(settings: Settings, installed_home: Path) -> None:
    shutil.copytree(airflow_home(settings.__class__.from_environment(
        {"SHOETAGGER_HOME": str(installed_home), "SHOETAGGER_REPO": str(settings.repo)}
    )), airflow_home(settings))  # fmt: skip
    for dry_run in (True, False):
        row = cleaned(settings, dry_run=dry_run)["rows of Airflow"]
        assert (row.number, row.note) == (0, "")
