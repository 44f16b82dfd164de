"""The command: what a newcomer sees, and what a script can rely on."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from helpers import stores
from helpers.bundles import write_bundle
from helpers.installation import make_project
from helpers.sample import copy_sample
from helpers.stores import make_live
from helpers.webhook import webhook
from PIL import Image
from typer.testing import CliRunner

from shoetagger.cli.app import app
from shoetagger.config import params as parameters
from shoetagger.config.settings import Settings
from shoetagger.errors import ShoetaggerError
from shoetagger.ops import servers
from shoetagger.store.rows import Edit
from shoetagger.store.store import Store
from shoetagger.tagging.alerts import alert_if_overdue

ROOT = Path(__file__).parents[2]
GROUPS = parameters.load(ROOT / "params.yaml").groups
NAME = "Stövlett 'brun', \"new\".jpg"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with two pictures, one of them in a subfolder, and a file that is none."""
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for path in (folder / NAME, folder / "more" / "b.png"):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)
    (folder / "notes.jpg").write_text("no picture")
    return folder


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """An installation with a champion for colour, its MLflow out of reach."""
    monkeypatch.setenv("SHOETAGGER_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("SHOETAGGER_REPO", str(make_project(tmp_path / "project")))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    settings = Settings.from_environment()
    settings.inbox.mkdir(parents=True)
    made = write_bundle(tmp_path / "made", "color", GROUPS["color"].tags)
    settings.bundles.mkdir()
    (tmp_path / "made").rename(settings.bundles / made.digest)
    with Store(stores.migrated(settings.store_url)) as store:
        store.ledger.add_version(
            digest=made.digest, group="color", tags=made.tags,
            registry_name="shoetagger-color", version="3", now=datetime.now(UTC),
        )  # fmt: skip
        now = datetime.now(UTC)
        make_live(store, "color", made.digest, by="me", why="it is good", now=now)
    return settings


def call(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_help_names_every_command_in_a_sentence() -> None:
    output = call("--help")
    for command in ("tag", "night", "status", "export", "validate", "history", "rollback", "sync"):
        assert command in output
    assert "nothing is stored" in call("tag", "--help")


@pytest.mark.slow
def test_tag_prints_one_json_line_a_file(installed: Settings, pictures: Path) -> None:
    lines = [
        json.loads(line) for line in call("tag", str(pictures), "--format", "jsonl").splitlines()
    ]
    by_name = {Path(line["path"]).name: line for line in lines}
    assert set(by_name) == {NAME, "b.png", "notes.jpg"}
    assert set(by_name["notes.jpg"]) == {"path", "rejected"}
    shown = by_name[NAME]
    assert shown["path"] == str(pictures / NAME)
    assert shown["image_id"] == hashlib.sha256((pictures / NAME).read_bytes()).hexdigest()
    assert set(shown["scores"]) == set(GROUPS["color"].tags)
    assert shown["tags"]["color"]
    assert shown["versions"] == {"color": "3"}
    with Store(installed.store_url) as store:
        assert store.current.counts(["color"]).files == 0  # nothing is stored


@pytest.mark.slow
def test_tag_uses_the_bundles_named(pictures: Path, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "mine", "material", ("suede", "canvas"))
    out = call("tag", str(pictures / NAME), "--bundle", str(tmp_path / "mine"), "--format", "jsonl")
    shown = json.loads(out)
    assert shown["versions"] == {"material": bundle.digest[:12]}
    assert set(shown["scores"]) == {"suede", "canvas"}


@pytest.mark.slow
def test_tag_as_csv_and_as_a_table(installed: Settings, pictures: Path) -> None:
    assert installed
    rows = list(csv.DictReader(io.StringIO(call("tag", str(pictures), "--format", "csv"))))
    assert [row["path"] for row in rows if row["rejected"]] == [str(pictures / "notes.jpg")]
    assert all(row["color"] for row in rows if not row["rejected"])
    assert not any(name.startswith("score_") for name in rows[0])
    scored = call("tag", str(pictures), "--format", "csv", "--scores")
    for row in csv.DictReader(io.StringIO(scored)):
        for tag in GROUPS["color"].tags:
            assert (row[f"score_{tag}"] == "") == bool(row["rejected"])
            assert 0 <= float(row[f"score_{tag}"] or 0) <= 1
    with pytest.raises(ShoetaggerError, match="--scores needs --format csv"):
        call("tag", str(pictures), "--scores")
    table = call("tag", str(pictures))
    assert f"{pictures / NAME}\n    color: " in table
    assert "rejected: " in table


@pytest.mark.slow
def test_the_same_file_named_twice_is_two_lines(installed: Settings, pictures: Path) -> None:
    assert installed
    file = str(pictures / NAME)
    assert len(call("tag", file, file, "--format", "jsonl").splitlines()) == 2


@pytest.mark.slow
def test_folders_are_found_by_any_path_and_links_by_name(
    installed: Settings, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert installed
    (pictures / "more" / "link.jpg").symlink_to(pictures / NAME)
    monkeypatch.chdir(pictures / "more")
    assert len(call("tag", "..", "--format", "jsonl").splitlines()) == 4
    (line,) = call("tag", "link.jpg", "--format", "jsonl").splitlines()
    assert json.loads(line)["tags"]["color"]


@pytest.mark.slow
def test_a_broken_file_is_judged_as_it_is_now(installed: Settings, pictures: Path) -> None:
    assert installed
    whole = (pictures / NAME).read_bytes()
    (pictures / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    shown = json.loads(call("tag", str(pictures / "cut.jpg"), "--format", "jsonl"))
    assert "truncated" in shown["rejected"]
    assert "arriving" not in shown["rejected"]


@pytest.mark.slow
def test_two_bundles_of_one_group_are_refused(pictures: Path, tmp_path: Path) -> None:
    write_bundle(tmp_path / "a")
    write_bundle(tmp_path / "b", head_seed=2)
    with pytest.raises(ShoetaggerError, match="two bundles of group color"):
        call("tag", str(pictures), "--bundle", str(tmp_path / "a"), "--bundle", str(tmp_path / "b"))


def test_without_a_champion_it_says_what_to_do(pictures: Path) -> None:
    stores.migrated(Settings.from_environment().store_url)
    with pytest.raises(ShoetaggerError, match=r"no champion yet.*`make up`.*--bundle models/color"):
        call("tag", str(pictures))


@pytest.mark.slow
def test_night_status_history_and_export(
    installed: Settings, pictures: Path, tmp_path: Path
) -> None:
    (pictures / NAME).rename(installed.inbox / NAME)
    output = call("night")
    assert "1 tagged" in output
    assert "by color v3" in output
    document = json.loads(call("status", "--json"))
    assert document["files"]["tagged"] == 1
    assert document["groups"]["color"]["version"] == "3"
    assert document["groups"]["style"]["bundle"] is None
    assert document["last_run"]["state"] == "done"
    assert "no champion yet" in call("status")
    assert "promote none -> version 3 (done) by me: it is good" in call("history", "color")
    assert "color        version 3        1 of 1 pictures tagged (100%), 0 stale" in call("status")
    (installed.inbox / "bad.jpg").write_text("no picture")
    call("night")
    assert "1 files wait" in call("retry")
    (installed.inbox / "sub").mkdir()
    (installed.inbox / "bad.jpg").rename(installed.inbox / "sub" / "b\nad.jpg")
    call("night")
    with pytest.raises(ShoetaggerError, match=r"called 'sub/bad\.jpg': the nearest are"):
        call("retry", "sub/bad.jpg")
    with pytest.raises(ShoetaggerError, match="none is like it"):
        call("retry", "sub/b\\nad.jpg", "another")
    assert "1 files wait" in call("retry", "sub/b\\nad.jpg"), "as rejected.csv shows it"
    call("night")
    assert "1 files wait" in call("retry", "sub/b\nad.jpg"), "below the inbox"
    call("night")
    assert "1 files wait" in call("retry", str(installed.inbox / "sub" / "b\nad.jpg"))
    out = tmp_path / "tags.csv"
    assert "1 pictures written" in call("export", str(out))
    assert NAME in next(csv.DictReader(out.open(newline="", encoding="utf-8-sig"))).values()
    call("export", str(out.with_suffix(".parquet")))
    assert out.with_suffix(".parquet").read_bytes().startswith(b"PAR1")


@pytest.mark.slow
def test_status_says_that_no_night_has_run_for_too_long(
    installed: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert json.loads(call("status", "--json"))["overdue"] is None
    with Store(installed.store_url) as store:
        run = store.runs.start("night", {}, datetime.now(UTC) - timedelta(hours=30))
        store.runs.finish(run, "done", {}, datetime.now(UTC))
    assert "look: no night has run for 30 hours" in call("status")
    servers.main(["status"])
    assert "no night has run for 30 hours" in capsys.readouterr().out
    with webhook() as (url, posted), Store(installed.store_url) as store:
        alert_if_overdue(url, store, 26.0)
        alert_if_overdue(url, store, 31.0)
    (message,) = posted
    assert "no night has run for 30 hours" in str(message["alerts"])


@pytest.mark.slow
def test_history_tells_which_version_tagged_a_picture_on_a_day(
    installed: Settings, pictures: Path
) -> None:
    (pictures / NAME).rename(installed.inbox / NAME)
    call("night")
    with Store(installed.store_url) as store:
        (row,) = store.current.rows(["color"])
        tags = " ".join(row.groups["color"].tags)
        store.corrections.correct(
            row.image_id, "color", ["black"], by="me", why="x", now=datetime.now(UTC)
        )
    for picture in (NAME, str(installed.inbox / NAME), row.image_id, row.image_id[:8]):
        shown = call("history", "--picture", picture)
        assert shown.startswith(row.image_id)
        assert "color        version 3        corrected by a person: black" in shown
    with Store(installed.store_url) as store:
        store.corrections.correct(
            row.image_id, "color", None, by="me", why="x", now=datetime.now(UTC)
        )
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    shown = call("history", "--picture", NAME, "--on", today)
    assert f"color        version 3        live: {tags}" in shown
    early = call("history", "--picture", NAME, "--on", "2026-05-03")
    assert "as of 2026-05-04 00:00 UTC\nno version had tagged it by then" in early
    assert "no version had" in call("history", "style", "--picture", NAME)
    with pytest.raises(ShoetaggerError, match=r"no picture 'other.jpg' was tagged: name a file"):
        call("history", "--picture", "other.jpg")
    with pytest.raises(ShoetaggerError, match="name it with --picture"):
        call("history", "--on", today)


@pytest.mark.slow
def test_correct_sets_a_persons_tags_and_withdraws_them(
    installed: Settings, pictures: Path, tmp_path: Path
) -> None:
    (pictures / NAME).rename(installed.inbox / NAME)
    call("night")
    assert "color is now black red" in call("correct", NAME, "color", "black", "red")
    call("export", str(tmp_path / "tags.jsonl"), "--format", "jsonl")
    row = json.loads((tmp_path / "tags.jsonl").read_text())
    assert (row["tags"]["color"], row["corrected"]) == (["black", "red"], ["color"])
    assert "color is now no tag" in call("correct", NAME, "color", "--none")
    tags = call("correct", NAME, "color", "--withdraw")
    assert f"live: {tags.split('is now ')[1]}" in call("history", "--picture", NAME)
    with pytest.raises(ShoetaggerError, match="color has no tag pink: its tags are"):
        call("correct", NAME, "color", "pink")
    for both in ([], ["red", "--none"], ["--none", "--withdraw"]):
        with pytest.raises(ShoetaggerError, match="exactly one of these"):
            call("correct", NAME, "color", *both)


@pytest.mark.slow
def test_the_queue_lists_what_to_check_and_quality_what_was_drawn(
    installed: Settings, pictures: Path
) -> None:
    assert "nothing to check" in call("queue")
    assert "no random reviews yet" in call("quality")
    shutil.copytree(pictures, installed.inbox, dirs_exist_ok=True)
    call("night")
    (line,) = call("queue", "--size", "1").splitlines()
    image_id, name, reason = line.split("  ", 2)
    assert name in (NAME, "more/b.png")
    assert reason
    with Store(installed.store_url) as store:
        (image_id,) = store.current.image_ids_starting_with(image_id, 2)
        edit = Edit(image_id, "color", ("black",))
        store.corrections.apply([edit], by="me", why="", origin="random", now=datetime.now(UTC))
    shown = call("quality")
    assert "by 1 picture drawn at random" in shown
    assert "color version 3 (live)" in shown


@pytest.mark.slow
def test_a_verdict_takes_all_tags_and_is_taken_back(
    installed: Settings, pictures: Path, tmp_path: Path
) -> None:
    (pictures / NAME).rename(installed.inbox / NAME)
    call("night")

    def exported() -> dict[str, Any]:
        call("export", str(tmp_path / "tags.jsonl"), "--format", "jsonl")
        found: dict[str, Any] = json.loads((tmp_path / "tags.jsonl").read_text())
        return found

    before = exported()
    assert f"{NAME}: not a shoe" in call("verdict", NAME, "--why", "a face")
    after = exported()
    assert (after["verdict"], set(map(tuple, after["tags"].values()))) == ("not a shoe", {()})
    assert after["scores"] == before["scores"]
    assert "judged as not a shoe by" in call("history", "--picture", NAME)
    with pytest.raises(ShoetaggerError, match="take that back before you tag it"):
        call("correct", NAME, "color", "red")
    assert "a shoe, with tags again" in call("verdict", NAME, "--withdraw")
    assert exported() == before


@pytest.mark.slow
def test_articles_are_exported_once_a_pattern_says_which_they_are(
    installed: Settings, pictures: Path, tmp_path: Path
) -> None:
    (pictures / NAME).rename(installed.inbox / "48213_1.jpg")
    call("night")
    out = tmp_path / "articles.jsonl"
    arguments = ("export", str(out), "--format", "jsonl", "--articles")
    with pytest.raises(ShoetaggerError, match=r"articles\.pattern in params.yaml is not set"):
        call(*arguments)
    document = yaml.safe_load(installed.params_file.read_text())
    document["articles"] = {"pattern": r"(?P<article>\d+)_\d+"}
    installed.params_file.write_text(yaml.safe_dump(document))
    assert "1 articles written" in call(*arguments)
    found = json.loads(out.read_text())
    assert (found["article"], found["pictures"]) == ("48213", 1)


def test_an_unknown_group_is_refused_by_name(installed: Settings) -> None:
    assert installed
    with pytest.raises(ShoetaggerError, match=r"no group 'colour'.*color, style, detail"):
        call("rollback", "colour", "--why", "a typo")


def test_validate_reports_all_faults_at_once(tmp_path: Path) -> None:
    images = tmp_path / "data" / "images"
    images.mkdir(parents=True)
    Image.new("RGB", (40, 40)).save(images / "a.jpg")
    tags = [tag for group in GROUPS.values() for tag in group.tags]
    sheet = tmp_path / "data" / "labels.csv"
    sheet.write_text(
        f"image_name,{','.join(tags)}\na.jpg,maybe{',' * 18}\nmissing.jpg,1{',' * 18}\n"
    )
    with pytest.raises(ShoetaggerError) as caught:
        call("validate", str(tmp_path / "data"))
    assert "'maybe'" in str(caught.value)
    assert "missing.jpg" in str(caught.value)
    sheet.write_text(f"image_name,{','.join(tags)}\na.jpg,1{',' * 18}\n")
    assert "no faults" in call("validate", str(tmp_path / "data"))


def test_validate_refuses_exclusive_tags_that_there_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    (tmp_path / "params.yaml").write_text(text.replace("[[above_ankle,", "[[above_ancle,"))
    monkeypatch.setenv("SHOETAGGER_REPO", str(tmp_path))
    copy_sample(tmp_path / "data", 4)
    with pytest.raises(ShoetaggerError, match=r"audit\.exclusive\[0\] names above_ancle"):
        call("validate")


@pytest.mark.slow
def test_a_fault_is_one_line_and_a_non_zero_exit(tmp_path: Path) -> None:
    environment = os.environ | {"SHOETAGGER_HOME": str(tmp_path / "nothing")}
    done = subprocess.run(
        [sys.executable, "-m", "shoetagger.cli.app", "status"],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.strip().splitlines()) == 1
    assert "migrate" in done.stderr


@pytest.mark.slow
def test_help_does_not_wait_for_torch() -> None:
    code = "import sys, shoetagger.cli.app\n"
    code += "print([m for m in ('torch', 'mlflow', 'httpx') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
