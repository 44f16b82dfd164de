"""Files that are renamed or copied: all names in the tables, and no model run for known bytes."""

from __future__ import annotations

import csv
import os
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from helpers.installation import install, put_pictures
from helpers.webhook import webhook

from shoetagger.config.settings import Settings
from shoetagger.inference.engine import Engine
from shoetagger.ingest.folder import locator_of
from shoetagger.ingest.inbox import InboxError
from shoetagger.orchestration.nightly import night
from shoetagger.store.store import Store


def table(settings: Settings) -> list[tuple[str, str]]:
    """Return the names and copies of every picture."""
    rows = []
    for sheet in settings.published.glob("csv/*.csv"):
        with sheet.open(newline="", encoding="utf-8-sig") as file:
            rows += [(row["file"], row["copies"]) for row in csv.DictReader(file)]
    return sorted(rows)


@pytest.mark.slow
def test_a_rename_costs_no_model_run_and_tables_carry_all_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = install(tmp_path)
    one, two = put_pictures(settings, 2)
    one = one.rename(settings.inbox / "1.jpg")
    two = two.rename(settings.inbox / "2.jpg")
    shutil.copy(one, settings.inbox / "1 again.jpg")
    assert night(settings, "night").counts["tagged"] == 3
    assert table(settings) == [("1 again.jpg", "1.jpg"), ("2.jpg", "")]

    def run_a_model(*_: object) -> None:
        raise AssertionError("a model is run on bytes that it has seen")

    monkeypatch.setattr(Engine, "predict_and_describe", run_a_model)
    with Store(settings.store_url) as store:  # what is not a shoe counts in no rate of a tag
        known = store.files.find(locator_of(two))
        assert known is not None
        store.corrections.judge(
            str(known.image_id), is_shoe=False, by="ann", why="", now=datetime.now(UTC)
        )
    one.rename(settings.inbox / "one.jpg")
    two.rename(settings.inbox / "two.jpg")
    assert night(settings, "night").counts["tagged"] == 2
    with Store(settings.store_url) as store:
        (run,) = store.runs.latest(1)
        row = next(row for row in store.current.rows([]) if row.verdict is None)
        (row,) = store.current.rows(["color", "style"], image_ids=[row.image_id])
        tags = {tag for cell in row.groups.values() for tag in cell.tags}
    assert run.rates is not None
    assert {tag: rate for tag, rate in run.rates.items() if rate[0]} == dict.fromkeys(tags, (1, 1))
    assert table(settings) == [("1 again.jpg", "one.jpg"), ("two.jpg", "")]
    for path in settings.inbox.iterdir():
        os.utime(path, (1e9, 1e9))  # as a share may show them after it is mounted again
    assert night(settings, "night").counts["tagged"] == 3
    (settings.inbox / "1 again.jpg").unlink()
    night(settings, "night")
    assert table(settings) == [("one.jpg", ""), ("two.jpg", "")]


@pytest.mark.slow
@pytest.mark.parametrize("files", [25, 1])
def test_an_inbox_that_is_not_mounted_fails_the_night_and_marks_nothing(
    tmp_path: Path, files: int
) -> None:
    settings = install(tmp_path)
    settings.inbox.rmdir()
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(files):
        (pictures / f"{number}.jpg").write_bytes(b"no picture")
        os.utime(pictures / f"{number}.jpg", (1e9, 1e9))
    settings.inbox.symlink_to(pictures)
    night(settings, "night")
    settings.inbox.unlink()
    settings.inbox.mkdir()
    with webhook() as (url, received):
        settings = replace(settings, notify_url=url)
        lacking = rf"lacks {files} of {files} known files.*tag\.max_missing"
        with pytest.raises(InboxError, match=lacking):
            night(settings, "night")
        settings.inbox.rmdir()
        with pytest.raises(InboxError, match="does not exist"):
            night(settings, "night")
    assert [alert["state"] for alert in received] == ["failed", "failed"]
    reasons = [" ".join(map(str, alert["alerts"])) for alert in received]  # type: ignore[call-overload]
    assert "is its disk or share mounted?" in reasons[0]
    assert "does not exist: create it" in reasons[1]
    with Store(settings.store_url) as store:
        latest = store.runs.latest(2)
        assert [run.state for run in latest] == ["failed", "failed"]
        assert [" ".join(run.alerts) for run in reversed(latest)] == reasons, "as `status` shows"
        assert store.current.counts([]).gone == 0
    settings.inbox.symlink_to(pictures)
    assert night(settings, "night").counts["new"] == 0


def test_an_inbox_that_is_empty_from_the_first_night_on_is_no_alert(tmp_path: Path) -> None:
    settings = install(tmp_path)
    for _ in range(2):
        summary = night(settings, "night")
        assert (summary.state, summary.alerts, summary.counts["seen"]) == ("done", (), 0)
