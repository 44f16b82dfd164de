"""What people checked comes back into the label sheet: real git, real DVC, a small repo."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import yaml
from filelock import FileLock
from PIL import Image
from typer.testing import CliRunner

from shoetagger.cli.app import app
from shoetagger.collection.collect import (
    Collected,
    CollectionError,
    CollectionUnderWay,
    collect,
    preview,
)
from shoetagger.collection.gather import gather, no_shoes
from shoetagger.config import params
from shoetagger.config.params import Params
from shoetagger.config.settings import Settings
from shoetagger.images.decode import image_id
from shoetagger.ingest.folder import locator_of
from shoetagger.ingest.inbox import Arrival
from shoetagger.store.rows import Edit, Tagged, file_id_of
from shoetagger.store.store import Store

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 11, 25, 9, tzinfo=UTC)
SHEET = "image_name,black,red,boot,flat\nold0.png,1,,1,\nold1.png,,1,,1\n"


def run(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def dvc(folder: Path, *arguments: str) -> str:
    return run(folder, sys.executable, "-m", "dvc", *arguments)


def picture(number: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((20, 30, 3), number, np.uint8)).save(out, "PNG")
    return out.getvalue()


@dataclass
class Place:
    """A repo with two labelled pictures, an inbox, and a store that people write to."""

    settings: Settings
    params: Params
    store: Store

    @property
    def repo(self) -> Path:
        return self.settings.repo

    def arrive(self, name: str, number: int) -> str:
        """Let a picture arrive; returns its id."""
        data = picture(number)
        path = self.settings.inbox / name
        path.write_bytes(data)
        locator = locator_of(path)
        self.store.files.note([Arrival(locator, "1-1-1", None)], NOW)
        tagged = Tagged(file_id_of(locator), "1-1-1", image_id(data), 30, 20)
        self.store.predictions.record(tagged=[tagged], run_id="run", now=NOW)
        return image_id(data)

    def check(self, picture: str, origin: str = "browse", by: str = "ann", **tags: str) -> None:
        """Let a person say what the tags of some groups are."""
        seen = self.store.corrections.in_force([picture])
        edits = [
            Edit(
                picture,
                group,
                tuple(text.split()),
                seen=seen[picture, group].id if (picture, group) in seen else None,
            )
            for group, text in tags.items()
        ]
        self.store.corrections.apply(edits, by=by, why="", origin=origin, now=NOW)

    def collect(self) -> Collected:
        return collect(self.settings, self.params, self.store)

    def called(self, *arguments: str) -> str:
        """What a command of `shoetagger` says here."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.settings.as_environment().items():
                patch.setenv(name, value)
            return CliRunner().invoke(app, list(arguments), catch_exceptions=False).output

    def data(self, commit: str = "labels") -> tuple[list[str], list[str]]:
        """The lines of the label sheet and the pictures as of a commit."""
        looked = self.repo.parent / "looked"
        run(self.repo, "git", "worktree", "add", "--quiet", "--force", str(looked), commit)
        shutil.copytree(self.repo / ".dvc" / "cache", looked / ".dvc" / "cache")
        dvc(looked, "checkout", "--quiet", "data.dvc")
        lines = (looked / "data" / "labels.csv").read_text().splitlines()
        images = sorted(path.name for path in (looked / "data" / "images").rglob("*.png"))
        run(self.repo, "git", "worktree", "remove", "--force", str(looked))
        return lines, images


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repo and an empty store, made once."""
    folder = tmp_path_factory.mktemp("collection")
    repo = folder / "repo"
    (repo / "data" / "images").mkdir(parents=True)
    for number in (0, 1):
        (repo / "data" / "images" / f"old{number}.png").write_bytes(picture(number))
    (repo / "data" / "labels.csv").write_text(SHEET)
    document = yaml.safe_load((ROOT / "params.yaml").read_text())
    document["groups"] = {
        "color": {"tags": ["black", "red"]},
        "style": {"tags": ["boot", "flat"]},
    }
    (repo / "params.yaml").write_text(yaml.safe_dump(document))
    (repo / "dvc.yaml").write_text("stages: {}\n")
    run(repo, "git", "init", "--quiet", "--initial-branch", "main")
    dvc(repo, "init", "--quiet")
    dvc(repo, "add", "--quiet", "data")
    run(repo, "git", "add", ".")
    run(repo, "git", "commit", "--quiet", "--message", "first")
    with Store(f"sqlite:///{folder / 'store.db'}") as store:
        store.migrate()
    return folder


@pytest.fixture
def place(template: Path, tmp_path: Path) -> Iterator[Place]:
    here = tmp_path / "here"
    shutil.copytree(template, here, symlinks=True)
    repo, remote = here / "repo", here / "remote"
    remote.mkdir()
    (repo / ".dvc" / "config.local").write_text(
        f"[core]\n    remote = storage\n['remote \"storage\"']\n    url = {remote}\n"
    )
    environment = {
        "SHOETAGGER_REPO": str(repo),
        "SHOETAGGER_HOME": str(here / "home"),
        "SHOETAGGER_STORE_URL": f"sqlite:///{here / 'store.db'}",
    }
    settings = Settings.from_environment(environment)
    settings.inbox.mkdir(parents=True)
    with Store(settings.store_url) as store:
        yield Place(settings, params.load(settings.params_file), store)


@pytest.mark.slow
def test_checked_pictures_become_rows_in_a_commit_on_the_branch(place: Place) -> None:
    boot = place.arrive("Stövel (röd).PNG", 10)
    other = place.arrive("b.png", 11)
    half = place.arrive("half.png", 12)
    place.check(boot, color="red", style="boot", by="ann")
    place.check(other, "random", color="black", style="", by="bo")
    place.check(half, color="black")
    head = run(place.repo, "git", "rev-parse", "HEAD")
    collected = place.collect()
    assert (collected.pictures, collected.left_out, collected.warnings) == (2, (), ())
    sheet, images = place.data()
    assert sheet == [
        "image_name,black,red,boot,flat,origin,labelled_by,labelled_at",
        *SHEET.splitlines()[1:],
        f"collected/St-vel-r-d-{boot[:8]}.png,0,1,1,0,browse,ann,2026-11-25",
        f"collected/b-{other[:8]}.png,1,0,0,0,random,bo,2026-11-25",
    ]
    assert len(images) == 4
    message = run(place.repo, "git", "log", "-1", "--format=%B", "labels")
    assert "2 checked pictures, 2 of them new" in message
    assert "checked by bo: 1" in message
    # The data is in the remote, and the workspace is as it was.
    assert any((place.repo.parent / "remote").rglob("*.dir"))
    assert run(place.repo, "git", "rev-parse", "HEAD") == head
    assert run(place.repo, "git", "status", "--porcelain") == ""
    assert "up to date" in dvc(place.repo, "status")
    # What was collected is collected once; the rest of a picture completes it later.
    assert place.collect() == Collected(None, 0)
    place.check(half, style="flat")
    assert place.collect().pictures == 1
    assert len(place.data()[0]) == 6


@pytest.mark.slow
def test_what_is_edited_again_is_written_over_its_row_and_keeps_its_side(place: Place) -> None:
    boot = place.arrive("a.png", 10)
    known = place.arrive("known.png", 0)  # the same bytes as a picture of the sheet
    place.check(boot, "random", color="red", style="boot")
    place.check(known, color="red", style="flat")
    place.collect()
    place.check(boot, "browse", color="black", by="bo")
    assert place.collect().pictures == 1
    sheet, _ = place.data()
    assert sheet[1] == "old0.png,0,1,0,1,,ann,2026-11-25"
    assert sheet[3] == f'collected/a-{boot[:8]}.png,1,0,1,0,random,"ann, bo",2026-11-25'
    assert len(sheet) == 4


@pytest.mark.slow
def test_what_is_not_a_shoe_never_becomes_a_row_of_noes(place: Place) -> None:
    face, shoe = place.arrive("face.png", 10), place.arrive("shoe.png", 20)
    for picture in (face, shoe):
        place.check(picture, color="", style="")
    place.store.corrections.judge(face, is_shoe=False, by="ann", why="", now=NOW)
    assert [one.image_id for one in gather(place.store, place.params.groups)] == [shoe]
    place.store.corrections.judge(face, is_shoe=True, by="ann", why="", now=NOW)
    found = [one.image_id for one in gather(place.store, place.params.groups)]
    assert set(found) == {shoe, face}


@pytest.mark.slow
def test_a_row_goes_with_the_verdict_and_comes_back_when_that_is_taken_back(place: Place) -> None:
    face, known = place.arrive("face.png", 10), place.arrive("known.png", 0)
    for picture_id in (face, known):
        place.check(picture_id, color="red", style="boot")
    place.collect()

    def judge(picture_id: str, is_shoe: bool) -> None:
        place.store.corrections.judge(picture_id, is_shoe=is_shoe, by="bo", why="", now=NOW)

    judge(face, is_shoe=False)
    collected = place.collect()
    assert (collected.pictures, collected.removed) == (0, 1)
    sheet, images = place.data()
    assert (len(sheet), images) == (3, ["old0.png", "old1.png"])
    message = run(place.repo, "git", "log", "-1", "--format=%B", "labels")
    assert message.startswith("Labels: 0 checked pictures, 0 of them new, 1 removed\n")
    assert f"checked by bo: 1\nnot a shoe: collected/face-{face[:8]}.png" in message
    assert place.collect() == Collected(None, 0)
    judge(face, is_shoe=True)
    assert (place.collect().pictures, len(place.data()[0])) == (1, 4)
    # A verdict on what has no row is looked at once.
    judge(place.arrive("other.png", 11), is_shoe=False)
    assert place.collect() == Collected(None, 0)
    assert place.store.corrections.uncollected_verdicts() == []


@pytest.mark.slow
def test_what_the_sheet_says_already_makes_no_commit(place: Place) -> None:
    boot = place.arrive("a.png", 10)
    place.check(boot, color="red", style="boot")
    first = place.collect().commit
    place.check(boot, color="red", style="boot")
    assert place.collect() == Collected(None, 0)
    assert place.store.corrections.uncollected() == []
    assert run(place.repo, "git", "rev-parse", "labels") == first


@pytest.mark.slow
def test_a_preview_says_all_and_changes_nothing(place: Place) -> None:
    assert preview(place.settings, place.params, place.store) is None
    assert place.called("collect", "--dry-run").startswith("nothing to collect")
    known = place.arrive("known.png", 0)
    place.check(known, color="red", style="boot")
    place.check(place.arrive("b.png", 11), "random", color="black", style="")
    place.store.corrections.judge(place.arrive("c.png", 1), is_shoe=False, by="bo", why="", now=NOW)
    found = preview(place.settings, place.params, place.store)
    assert found is not None
    assert found.edits.summary == "2 checked pictures, 1 of them new, 1 removed"
    shown = place.called("collect", "--dry-run")
    for line in (
        "old0.png  boot red  (ann, browse)",
        "old1.png  removed, since it is not a shoe  (bo)",
        "changed: old0.png: + red, - black (ann)",
        "would be a commit on labels: 2 checked pictures, 1 of them new, 1 removed",
    ):
        assert line in shown.splitlines()
    assert run(place.repo, "git", "branch", "--list", "labels") == ""
    assert len(place.store.corrections.uncollected()) == 2

    # What comes after an approval waits for the next time.
    place.check(place.arrive("late.png", 12), color="red", style="boot")
    collected = collect(
        place.settings, place.params, place.store, until=found.until, approved_by="kim"
    )
    assert (collected.pictures, collected.removed) == (2, 1)
    assert collected.changes == ("old0.png: + red, - black (ann)",)
    message = run(place.repo, "git", "log", "-1", "--format=%B", "labels")
    assert "approved by kim\nnot a shoe: old1.png\nchanged: old0.png: + red" in message
    assert "1 picture collected" in place.called("collect")


@pytest.mark.slow
def test_a_picture_that_is_gone_or_replaced_is_left_out_and_named(place: Place) -> None:
    for name, number in (("gone.png", 10), ("replaced.png", 11), ("there.png", 12)):
        place.check(place.arrive(name, number), color="red", style="boot")
    (place.settings.inbox / "gone.png").unlink()
    (place.settings.inbox / "replaced.png").write_bytes(picture(99))
    collected = place.collect()
    assert collected.pictures == 1
    assert [line.split()[0] for line in collected.left_out] == ["gone.png", "replaced.png"]
    (place.settings.inbox / "gone.png").write_bytes(picture(10))
    assert place.collect().pictures == 1


@pytest.mark.slow
def test_what_cannot_be_pushed_or_merged_changes_nothing(place: Place) -> None:
    place.check(place.arrive("a.png", 10), color="red", style="boot")
    remote = place.repo.parent / "remote"
    remote.rmdir()
    remote.write_text("a file in its place")
    with pytest.raises(CollectionError, match=r"`dvc push` failed(.|\n)*Not a directory"):
        place.collect()
    assert run(place.repo, "git", "branch", "--list", "labels") == ""
    remote.unlink()

    # The branch is checked out in the workspace.
    run(place.repo, "git", "switch", "--quiet", "--create", "labels")
    with pytest.raises(CollectionError, match="Is it checked out"):
        place.collect()
    run(place.repo, "git", "switch", "--quiet", "main")
    assert place.collect().pictures == 1

    # The sheet was edited on main meanwhile, and what was collected is not merged yet.
    sheet = place.repo / "data" / "labels.csv"
    text = sheet.read_text().replace("old0.png,1", "old0.png,")
    sheet.unlink()
    sheet.write_text(text)
    dvc(place.repo, "add", "--quiet", "data")
    run(place.repo, "git", "commit", "--quiet", "--all", "--message", "edited")
    place.check(place.arrive("b.png", 11), color="red", style="boot")
    with pytest.raises(CollectionError, match=r"edited both on labels and .*git merge labels"):
        place.collect()
    assert len(place.store.corrections.uncollected()) == 1

    # Once merged, the branch follows.
    run(place.repo, "git", "merge", "--quiet", "--strategy=ours", "labels", "-m", "merged")
    assert place.collect().pictures == 1
    assert run(place.repo, "git", "rev-parse", "main") == run(
        place.repo, "git", "rev-parse", "labels~1"
    )


@pytest.mark.slow
def test_a_sheet_that_would_not_validate_is_not_committed(place: Place) -> None:
    sheet = place.repo / "data" / "labels.csv"
    sheet.unlink()
    sheet.write_text(SHEET + "missing.png,1,,1,\n")
    dvc(place.repo, "add", "--quiet", "data")
    run(place.repo, "git", "commit", "--quiet", "--all", "--message", "broken")
    place.check(place.arrive("a.png", 10), color="red", style="boot")
    with pytest.raises(CollectionError, match=r"would not pass .*\n.*'missing.png' is no file"):
        place.collect()
    assert run(place.repo, "git", "branch", "--list", "labels") == ""


@pytest.mark.slow
def test_the_branch_goes_to_gits_remote_by_name_and_a_refusal_is_a_warning(place: Place) -> None:
    bare = place.repo.parent / "bare.git"
    run(place.repo, "git", "clone", "--quiet", "--bare", str(place.repo), str(bare))
    run(place.repo, "git", "remote", "add", "origin", str(bare))
    place.check(place.arrive("a.png", 10), color="red", style="boot")
    would = "would be a commit on labels, pushed to origin: 1 checked picture, 1 of them new\n"
    assert place.called("collect", "--dry-run").endswith(would)
    first = place.collect()
    assert (first.pushed_to, first.warnings) == ("origin", ())
    assert run(bare, "git", "rev-parse", "labels") == first.commit
    shutil.rmtree(bare)
    place.check(place.arrive("b.png", 11), color="red", style="boot")
    second = place.collect()
    assert second.commit == run(place.repo, "git", "rev-parse", "labels")
    (warning,) = second.warnings
    assert "`git push origin labels`" in warning
    assert second.pushed_to is None
    run(place.repo, "git", "clone", "--quiet", "--bare", str(place.repo), str(bare))
    place.check(place.arrive("c.png", 12), color="red", style="boot")
    said = place.called("collect")
    assert re.search(r"^1 picture collected: commit \w+ on labels, pushed to origin; ", said, re.M)


@pytest.mark.slow
def test_a_picture_counts_as_drawn_only_where_people_met_all_of_it_so(place: Place) -> None:
    drawn, later, partly, chosen = (place.arrive(f"{n}.png", n) for n in range(10, 14))
    for picture_id in (drawn, later):
        place.check(picture_id, "random", color="red", style="boot")
    # Whoever edits it later: else just those that people disagree about would not validate.
    place.check(later, "browse", color="black", by="bo")
    place.check(partly, "browse", color="red")
    place.check(partly, "random", style="boot")
    place.check(chosen, "queue", color="red", style="boot")
    origins = {p.image_id: p.origin for p in gather(place.store, place.params.groups)}
    assert origins == {drawn: "random", later: "random", partly: "browse", chosen: "queue"}


def test_a_picture_with_any_edit_after_the_approval_was_asked_for_waits(place: Place) -> None:
    face, turned, edited, seen = (place.arrive(f"{n}.png", n) for n in range(10, 14))
    for picture_id in (face, turned, edited, seen):
        place.check(picture_id, color="red", style="boot")

    def judge(picture_id: str, is_shoe: bool) -> None:
        place.store.corrections.judge(picture_id, is_shoe=is_shoe, by="bo", why="", now=NOW)

    judge(face, is_shoe=False)
    judge(turned, is_shoe=False)
    until = place.store.corrections.last()
    # The approval shows it as one whose row goes: its older tags are not what was approved.
    judge(turned, is_shoe=True)
    place.check(edited, color="black")
    taken = gather(place.store, place.params.groups, until=until)
    assert [one.image_id for one in taken] == [seen]
    assert [one.image_id for one in no_shoes(place.store, until=until)] == [face]
    taken = gather(place.store, place.params.groups, until=place.store.corrections.last())
    assert {one.image_id for one in taken} == {turned, edited, seen}


def test_of_two_collections_at_once_the_second_says_so(place: Place) -> None:
    with (
        FileLock(place.settings.home / "collect.lock"),
        pytest.raises(CollectionUnderWay, match="another collection is at work"),
    ):
        place.collect()


def test_a_tag_that_params_no_longer_know_is_left_out(place: Place) -> None:
    picture_id = place.arrive("a.png", 10)
    place.check(picture_id, color="red pink", style="boot")
    (checked,) = gather(place.store, place.params.groups)
    assert checked.tags == {"red", "boot"}
