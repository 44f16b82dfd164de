"""A git revision checked out and DVC stages run in it: real git, real DVC, tiny stages."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.repo import Repo

from shoetagger.config import params
from shoetagger.config.reading import read_yaml
from shoetagger.config.settings import Settings
from shoetagger.pipeline import cache, checkout_lock
from shoetagger.pipeline.checkout import _configure_dvc, checkout, prune
from shoetagger.pipeline.dvc_files import data_revision, outputs, upstream
from shoetagger.pipeline.plan import Plan, groups_of, override_params, params_of, prepare
from shoetagger.pipeline.process import PipelineError, TransientPipelineError
from shoetagger.pipeline.repro import materialised, run_stage

REAL_PARAMS = Path(__file__).parents[2] / "params.yaml"

# A package of the commit's own, so that its `src` must come first on the path. Each stage notes
# in runs.txt that it really ran.
TINY = """
import os, pathlib, sys, time, yaml
stage, out, *inputs = sys.argv[1:]
root = pathlib.Path(os.environ["SHOETAGGER_HOME"])
with (root / "runs.txt").open("a") as runs:
    runs.write(f"{stage} {os.getpid()}\\n")
print("tiny stage", stage, "by", sys.executable, flush=True)
fail, wait = root / f"fail-{stage}", root / f"wait-{stage}"
if fail.exists():
    sys.exit(fail.read_text())
while wait.exists():
    wait.with_suffix(".reached").touch()
    time.sleep(0.05)
epochs = yaml.safe_load(open("params.yaml"))["train"]["epochs"]
text = "".join(p.read_text() for p in map(pathlib.Path, inputs))
pathlib.Path(out).parent.mkdir(parents=True, exist_ok=True)
pathlib.Path(out).write_text(f"{stage} {epochs}: {text}")
"""
TINY_STAGES = """
stages:
  split:
    cmd: python -m tiny_stages split split/all.txt data/labels.csv
    deps: [data, src/tiny_stages.py]
    outs: [split]
  train:
    foreach: ${groups}
    do:
      cmd: python -m tiny_stages train-${key} models/${key}.txt split/all.txt
      deps: [split, src/tiny_stages.py]
      params: [train]
      outs: ["models/${key}.txt"]
"""


def git(repo: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    return subprocess.run(
        ["git", *identity, *arguments], cwd=repo, check=True, capture_output=True, text=True
    ).stdout.strip()


def dvc(repo: Path, *arguments: str, **more: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=repo,
        env=os.environ | more,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def add_data(repo: Path) -> None:
    """`dvc add data`, without the seconds that a new Python takes."""
    with Repo(str(repo)) as opened:
        opened.add(str(repo / "data"))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    repo = tmp_path_factory.mktemp("template") / "repo"
    (repo / "src").mkdir(parents=True)
    (repo / "data" / "images").mkdir(parents=True)
    (repo / "data" / "labels.csv").write_text("image_name,black\na.jpg,1\n")
    (repo / "data" / "images" / "ä b.jpg").write_bytes(b"picture")
    (repo / "src" / "tiny_stages.py").write_text(TINY)
    (repo / "dvc.yaml").write_text(TINY_STAGES)
    (repo / ".gitignore").write_text("/.shoetagger/\n__pycache__/\n")
    shutil.copy(REAL_PARAMS, repo / "params.yaml")
    git(repo, "init", "--quiet", "--initial-branch=main")
    with Repo.init(str(repo)):
        pass
    add_data(repo)
    git(repo, "add", ".")
    git(repo, "commit", "--quiet", "-m", "First")
    return repo


@pytest.fixture
def settings(template: Path, tmp_path: Path) -> Settings:
    repo = tmp_path / "repo"
    shutil.copytree(template, repo, symlinks=True)
    settings = Settings.from_environment({"SHOETAGGER_REPO": str(repo)})
    settings.home.mkdir()
    return settings


def runs(settings: Settings) -> list[str]:
    """Which stages really ran, in order."""
    file = settings.home / "runs.txt"
    return [line.split()[0] for line in file.read_text().splitlines()] if file.exists() else []


def until(condition: Callable[[], Any], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


# --- overrides ----------------------------------------------------------------------------------


@pytest.fixture
def document() -> Any:
    return read_yaml(REAL_PARAMS.read_text())


@pytest.mark.parametrize(
    ("override", "value"),
    [("train.epochs=5", 5), ("train.epochs = 5", 5), ("train.head_lr=1e-3", 0.001)],
)
def test_an_override_sets_one_value_given_in_yaml(
    document: Any, override: str, value: object
) -> None:
    changed = override_params(document, override)
    key = override.partition("=")[0].strip().split(".")[1]
    assert getattr(params.parse(changed).train, key) == value
    assert params.parse(document) == params.load(REAL_PARAMS), "the original was changed"


def test_a_group_gets_a_training_parameter_of_its_own(document: Any) -> None:
    found = params.parse(override_params(document, "groups.color.train.epochs=3"))
    assert found.train_of("color").epochs == 3
    assert found.train_of("style").epochs == found.train.epochs


def test_a_list_is_a_value(document: Any) -> None:
    found = params.parse(override_params(document, "groups.color.tags=[black, red]"))
    assert found.groups["color"].tags == ("black", "red")


@pytest.mark.parametrize(
    ("override", "fragment"),
    [
        ("train.epochs", "not of the form"),
        ("=5", "not of the form"),
        ("train..epochs=5", "not of the form"),
        ("train.epochs=[5", "not YAML"),
        ("train.epochs.x=5", "train.epochs is a value"),
    ],
)
def test_an_override_that_cannot_be_read_is_refused(
    document: Any, override: str, fragment: str
) -> None:
    with pytest.raises(PipelineError, match=fragment):
        override_params(document, override)


# --- prepare ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_names_the_commit_of_its_revision(settings: Settings) -> None:
    head = git(settings.repo, "rev-parse", "HEAD")
    plan = prepare(settings.repo, overrides=["train.epochs=5", " "])
    assert plan == Plan(commit=head, overrides=("train.epochs=5",))
    assert Plan.model_validate(json.loads(json.dumps(plan.model_dump(mode="json")))) == plan
    assert params_of(settings.repo, plan).train.epochs == 5


def test_plans_that_differ_have_checkouts_that_differ() -> None:
    commit = "0123456789abcdef"
    names = {
        Plan(commit=commit, overrides=o).name
        for o in [(), ("a=1",), ("a=1", "b=2"), ("b=2", "a=1")]
    }
    assert len(names) == 4
    assert Plan(commit=commit).name == "0123456789ab"


@pytest.mark.parametrize("revision", ["nonsense", "", "--all", "HEAD~7", "HEAD:params.yaml"])
def test_a_revision_that_does_not_exist_is_refused(settings: Settings, revision: str) -> None:
    with pytest.raises(PipelineError, match="is not a revision") as caught:
        prepare(settings.repo, revision)
    assert repr(revision) in str(caught.value)


@pytest.mark.parametrize(
    ("override", "fragment"),
    [
        ("train.epoch=5", "unknown key train.epoch: "),
        ("train.epochs=many", "train.epochs: 'many' is not a whole number"),
        ("groups.colour.train.epochs=3", "groups.colour.tags"),
        ("split.validation=2", "split.validation"),
    ],
)
def test_an_override_that_params_refuses_is_named(
    settings: Settings, override: str, fragment: str
) -> None:
    with pytest.raises(PipelineError) as caught:
        prepare(settings.repo, overrides=["train.epochs=5", override])
    assert fragment in str(caught.value)
    assert override in str(caught.value)


def test_an_older_commit_is_trained_from_under_the_names_that_it_knows(settings: Settings) -> None:
    path = settings.repo / "params.yaml"
    path.write_text(path.read_text().replace("backbone_lr:", "trunk_lr:"))
    git(settings.repo, "commit", "--quiet", "-am", "As before the key was renamed")
    overrides = ["train.trunk_lr=0.5", "groups.style.train.trunk_lr=0.25"]
    plan = prepare(settings.repo, overrides=overrides)
    assert params_of(settings.repo, plan).train.backbone_lr == 0.5
    assert params_of(settings.repo, plan).train_of("style").backbone_lr == 0.25
    assert groups_of(settings.repo, plan) == ["color", "style", "detail"]
    with pytest.raises(PipelineError, match=r"in this commit it is called train\.trunk_lr"):
        prepare(settings.repo, overrides=["train.backbone_lr=0.5"])
    with pytest.raises(PipelineError, match=r"it is called train\.backbone_lr now"):
        prepare(settings.repo, "HEAD^", overrides=["train.trunk_lr=0.5"])


def test_overrides_may_be_valid_together_only(settings: Settings) -> None:
    overrides = ["train.weights=none", "train.freeze=none"]
    plan = prepare(settings.repo, overrides=overrides)
    assert params_of(settings.repo, plan).train.freeze == "none"
    with pytest.raises(PipelineError, match=r"train\.freeze"):
        prepare(settings.repo, overrides=overrides[:1])


@pytest.mark.parametrize(
    "key",
    [
        *("promote.rule.macro_f1_margin", " promote.approval", "promote", "promote .approval"),
        *("tag.max_rejected", "keep.checkouts", "publish.max_pages", "audit.shown"),
    ],
)
def test_what_an_installation_sets_once_cannot_be_overridden(settings: Settings, key: str) -> None:
    message = f"override '{key.strip()}=never': {key.strip()} is no parameter of training"
    with pytest.raises(PipelineError, match=re.escape(message)) as caught:
        prepare(settings.repo, overrides=[f"{key}=never"])
    assert str(settings.repo / "params.yaml") in str(caught.value)


def test_uncommitted_inputs_are_refused_by_name(settings: Settings) -> None:
    repo = settings.repo
    document = yaml.safe_load((repo / "params.yaml").read_text())
    document["train"]["epochs"] += 1
    (repo / "params.yaml").write_text(yaml.safe_dump(document))
    (repo / "src" / "new module.py").write_text("")
    (repo / "notes.txt").write_text("not an input")
    with pytest.raises(PipelineError) as caught:
        prepare(settings.repo)
    message = str(caught.value)
    assert "params.yaml" in message
    assert "src/new module.py" in message
    assert "commit" in message
    assert "notes.txt" not in message


def test_what_is_the_installations_may_be_uncommitted(settings: Settings) -> None:
    """The gate that a person has just set counts as it lies there."""
    path = settings.repo / "params.yaml"
    document = yaml.safe_load(path.read_text())
    document["promote"]["approval"] = "always"
    path.write_text(yaml.safe_dump(document))
    assert prepare(settings.repo).commit
    for text in ("train: {", "- a list\n", None):
        path.unlink() if text is None else path.write_text(text)
        with pytest.raises(PipelineError, match=r"uncommitted inputs: params\.yaml"):
            prepare(settings.repo)


def test_changed_labels_are_refused_by_name(settings: Settings) -> None:
    with (settings.repo / "data" / "labels.csv").open("a") as file:
        file.write("b.jpg,0\n")
    (settings.repo / "data" / "images" / "new ü.jpg").write_bytes(b"another")
    with pytest.raises(PipelineError) as caught:
        prepare(settings.repo)
    message = str(caught.value)
    assert "data/labels.csv (modified)" in message
    assert "data/images/new ü.jpg (added)" in message
    assert "dvc add data" in message


def test_a_label_sheet_that_went_missing_is_refused_by_name(settings: Settings) -> None:
    (settings.repo / "data" / "labels.csv").unlink()
    with pytest.raises(PipelineError, match=r"data/labels\.csv \(deleted\)"):
        prepare(settings.repo)


def test_data_that_was_added_but_not_committed_is_refused(settings: Settings) -> None:
    with (settings.repo / "data" / "labels.csv").open("a") as file:
        file.write("b.jpg,0\n")
    add_data(settings.repo)
    with pytest.raises(PipelineError, match=r"uncommitted inputs: data\.dvc"):
        prepare(settings.repo)


def test_a_clone_whose_data_was_never_pulled_has_changed_nothing(settings: Settings) -> None:
    shutil.rmtree(settings.repo / "data")
    assert prepare(settings.repo).commit


@pytest.mark.slow
def test_a_commit_that_another_machine_made_is_fetched(settings: Settings, tmp_path: Path) -> None:
    behind = tmp_path / "behind"
    git(tmp_path, "clone", "--quiet", str(settings.repo), str(behind))
    git(settings.repo, "switch", "--quiet", "--create", "labels")
    git(settings.repo, "commit", "--quiet", "--allow-empty", "-m", "Of another machine")
    commit = git(settings.repo, "rev-parse", "HEAD")
    assert params_of(behind, Plan(commit=commit)) == params.load(settings.params_file)
    assert git(behind, "log", "--format=%H", "HEAD").splitlines() != [commit], "HEAD has moved"

    git(settings.repo, "commit", "--quiet", "--amend", "--allow-empty", "-m", "Rebased since")
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(settings.repo), str(clone))
    assert prepare(clone, "labels").commit == git(settings.repo, "rev-parse", "labels")
    assert prepare(clone, commit).commit == commit, "no branch has it any more"
    with pytest.raises(PipelineError, match="nor of its remote origin"):
        prepare(clone, "0" * 40)

    settings.repo.rename(tmp_path / "away")
    with pytest.raises(TransientPipelineError, match="'nonsense' is not in"):
        prepare(clone, "nonsense")


def test_another_commit_is_not_held_up_by_what_is_uncommitted_here(settings: Settings) -> None:
    first = git(settings.repo, "rev-parse", "HEAD")
    git(settings.repo, "commit", "--quiet", "--allow-empty", "-m", "Second")
    (settings.repo / "src" / "unfinished.py").write_text("")
    with pytest.raises(PipelineError, match=r"unfinished\.py"):
        prepare(settings.repo)
    assert prepare(settings.repo, "HEAD~1").commit == first


def test_a_commit_without_data_is_refused(settings: Settings) -> None:
    git(settings.repo, "rm", "--quiet", "data.dvc")
    git(settings.repo, "commit", "--quiet", "-m", "No data")
    with pytest.raises(PipelineError, match=r"has no data\.dvc"):
        prepare(settings.repo)


def test_a_folder_that_is_no_git_repo_is_refused(tmp_path: Path) -> None:
    shutil.copy(REAL_PARAMS, tmp_path / "params.yaml")
    settings = Settings.from_environment({"SHOETAGGER_REPO": str(tmp_path)})
    with pytest.raises(PipelineError, match="git"):
        prepare(settings.repo)


def test_a_broken_params_file_of_a_commit_is_named(settings: Settings) -> None:
    (settings.repo / "params.yaml").write_text("train: [")
    git(settings.repo, "commit", "--quiet", "-am", "Broken")
    with pytest.raises(PipelineError, match=r"params\.yaml of commit"):
        prepare(settings.repo)


def test_groups_come_in_the_order_of_params_and_unknown_ones_are_refused(
    settings: Settings,
) -> None:
    plan = Plan(commit=git(settings.repo, "rev-parse", "HEAD"))
    assert groups_of(settings.repo, plan) == ["color", "style", "detail"]
    assert groups_of(settings.repo, plan, ["detail", "color"]) == ["color", "detail"]
    # A group that only the commit has is trained without being named.
    document = yaml.safe_load((settings.repo / "params.yaml").read_text())
    document["groups"]["sole"] = {"tags": ["flat sole"]}
    (settings.repo / "params.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    git(settings.repo, "commit", "--quiet", "-am", "A fourth group")
    later = Plan(commit=git(settings.repo, "rev-parse", "HEAD"))
    assert groups_of(settings.repo, later) == ["color", "style", "detail", "sole"]
    with pytest.raises(PipelineError, match=r"no group 'colour'.* color, style, detail"):
        groups_of(settings.repo, plan, ["colour", "style"])


def test_the_outputs_of_a_stage_are_named_by_dvc_yaml(settings: Settings) -> None:
    found = outputs(settings.repo, "train@style")
    assert found == {"style.txt": settings.repo / "models" / "style.txt"}
    with pytest.raises(PipelineError, match="no stage train@sizes"):
        outputs(settings.repo, "train@sizes")
    pipeline = settings.repo / "dvc.yaml"
    pipeline.write_text(pipeline.read_text().replace("models/${key}.txt", "models/a_${key}.txt"))
    assert list(outputs(settings.repo, "train@style")) == ["a_style.txt"]
    pipeline.write_text("stages: 3")
    with pytest.raises(PipelineError, match=r"DVC cannot read the stages of .*dvc\.yaml"):
        outputs(settings.repo, "train@style")
    pipeline.unlink()
    assert upstream(settings.repo, "train@style") == []
    with pytest.raises(PipelineError, match="no stage train@style"):
        outputs(settings.repo, "train@style")


def test_dvc_reads_the_stages_of_a_checkout_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of a training's tasks would spend a second on it."""
    found = outputs(settings.repo, "train@style")
    depends = upstream(settings.repo, "train@style")
    assert depends
    monkeypatch.delattr("dvc.repo.Repo.index")
    assert outputs(settings.repo, "train@style") == found
    assert upstream(settings.repo, "train@style") == depends
    # What a crash or a full disk left of the file is made anew.
    (kept,) = (settings.repo / ".dvc" / "tmp" / "shoetagger").iterdir()
    kept.write_bytes(kept.read_bytes()[:40])
    monkeypatch.undo()
    assert outputs(settings.repo, "train@style") == found


# --- checkout -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_checkout_holds_commit_data_and_overrides_and_leaves_the_workspace_alone(
    settings: Settings,
) -> None:
    plan = prepare(settings.repo, overrides=["groups.color.train.epochs=3"])
    (settings.home / "some state").touch()
    status = ["status", "--porcelain", "--ignored"]
    before = git(settings.repo, *status)
    folder = checkout(settings, plan)
    assert folder.parent == settings.checkouts
    assert git(folder, "describe", "--always", "--abbrev=40", "--dirty") == plan.commit
    assert params.load(folder / "params.yaml").train_of("color").epochs == 3
    assert (folder / "data" / "images" / "ä b.jpg").read_bytes() == b"picture"
    recorded = yaml.safe_load((settings.repo / "data.dvc").read_text())["outs"][0]["md5"]
    assert data_revision(folder) == recorded
    assert git(settings.repo, *status) == before
    marker = folder / "made once"
    marker.touch()
    assert checkout(settings, plan) == folder
    assert marker.exists()
    assert sorted(p.name for p in settings.checkouts.iterdir()) == [
        folder.name,
        f"{folder.name}.lock",
    ]


@pytest.mark.slow
def test_workers_that_come_at_once_make_one_checkout(settings: Settings) -> None:
    keep = params.load(settings.params_file).keep.checkouts
    for number in range(keep):
        (settings.checkouts / f"old {number}").mkdir(parents=True)
        os.utime(settings.checkouts / f"old {number}", (1000 - number, 1000 - number))
    plan = Plan(commit=git(settings.repo, "rev-parse", "HEAD"))
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(checkout(settings, plan))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [settings.checkouts / plan.name] * 3
    assert (found[0] / "data" / "labels.csv").exists()
    left = {p.name for p in settings.checkouts.iterdir() if p.is_dir()}
    assert left == {plan.name, *(f"old {number}" for number in range(keep - 1))}


def test_a_checkout_that_another_worker_has_just_removed_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shoetagger.pipeline.checkout.beyond", lambda *_: [tmp_path / "removed"])
    assert prune(tmp_path, keep=0) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_what_a_killed_checkout_left_behind_is_cleared_away(settings: Settings) -> None:
    plan = Plan(commit=git(settings.repo, "rev-parse", "HEAD"))
    half = settings.checkouts / f".{plan.name}.dead"
    (half / "tree" / "data").mkdir(parents=True)
    folder = checkout(settings, plan)
    assert not half.exists()
    assert (folder / "data" / "labels.csv").exists()


@pytest.mark.slow
def test_data_that_is_nowhere_fails_in_a_way_that_may_pass(settings: Settings) -> None:
    shutil.rmtree(settings.repo / ".dvc" / "cache")
    plan = Plan(commit=git(settings.repo, "rev-parse", "HEAD"))
    with pytest.raises(TransientPipelineError, match="dvc push"):
        checkout(settings, plan)
    assert [p.name for p in settings.checkouts.iterdir()] == [f"{plan.name}.lock"]


@pytest.mark.slow
@pytest.mark.parametrize("place", ["in the repo", "beside the repo", "only for this user"])
def test_data_is_pulled_from_a_remote_given_by_a_relative_path(
    settings: Settings, place: str
) -> None:
    repo = settings.repo
    url = {"in the repo": "store", "beside the repo": "../store"}.get(place, "../my store")
    local = ["--local"] if place == "only for this user" else []
    dvc(repo, "remote", "add", *local, "--default", "origin", url)
    dvc(repo, "push", "--quiet")
    git(repo, "add", "-A")
    git(repo, "commit", "--quiet", "--allow-empty", "-m", "A remote")
    shutil.rmtree(repo / ".dvc" / "cache")
    shutil.rmtree(repo / "data")
    folder = checkout(settings, prepare(settings.repo))
    assert (folder / "data" / "labels.csv").exists()
    assert (repo / ".dvc" / "cache").is_dir(), "the cache is not shared"
    assert not (folder / ".dvc" / "cache").exists()


@pytest.mark.slow
def test_a_cache_that_the_repo_configures_is_shared(settings: Settings, tmp_path: Path) -> None:
    repo = settings.repo
    (repo / ".dvc" / "cache").rename(tmp_path / "big disk")
    dvc(repo, "cache", "dir", "--local", str(tmp_path / "big disk"))
    folder = checkout(settings, prepare(settings.repo))
    assert (folder / "data" / "labels.csv").exists()
    assert not (folder / ".dvc" / "cache").exists()
    with Repo(str(folder)) as opened:
        assert opened.cache.legacy.path == str(tmp_path / "big disk")


def test_the_secrets_of_a_remote_stay_private_in_a_checkout(tmp_path: Path) -> None:
    for name in ("repo", "tree"):
        (tmp_path / name / ".dvc").mkdir(parents=True)
        (tmp_path / name / ".dvc" / "config").write_text(
            "['remote \"store\"']\n    url = https://store.example.org\n"
        )
    local = tmp_path / "repo" / ".dvc" / "config.local"
    local.touch(mode=0o600)
    local.write_text("['remote \"store\"']\n    password = hunter\n")
    _configure_dvc(tmp_path / "repo", tmp_path / "tree")
    copied = tmp_path / "tree" / ".dvc" / "config.local"
    assert "password = hunter" in copied.read_text()
    assert stat.S_IMODE(copied.stat().st_mode) == 0o600


def test_old_checkouts_go_but_not_those_in_use(settings: Settings) -> None:
    for age, name in enumerate(["newest", "second", "in use", "oldest"]):
        (settings.checkouts / name / "data").mkdir(parents=True)
        os.utime(settings.checkouts / name, (1000 - age, 1000 - age))
    in_use = settings.checkouts / "in use"
    with checkout_lock.shared(in_use):
        assert prune(settings.checkouts, keep=2) == ["oldest"]
    assert {p.name for p in settings.checkouts.iterdir() if p.is_dir()} == {
        "newest",
        "second",
        "in use",
    }
    assert prune(settings.checkouts, keep=2) == ["in use"]


# --- stages -------------------------------------------------------------------------------------


@pytest.fixture
def plan(settings: Settings) -> Plan:
    return Plan(commit=git(settings.repo, "rev-parse", "HEAD"))


@pytest.mark.slow
def test_the_workspace_restores_what_a_run_computed(
    settings: Settings, plan: Plan, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert run_stage(settings, plan, "split") == "ran"
    assert run_stage(settings, plan, "train@color") == "ran"
    assert run_stage(settings, plan, "train@color") == "unchanged"
    assert "tiny stage train-color by" in caplog.text
    assert not (settings.repo / "models").exists(), "the workspace was written"
    assert runs(settings) == ["split", "train-color"]

    dvc(settings.repo, "repro", "train@color", SHOETAGGER_HOME=str(settings.home))
    assert runs(settings) == ["split", "train-color"]
    name = "models/color.txt"
    folder = checkout(settings, plan)
    assert (settings.repo / name).read_text() == (folder / name).read_text()

    # A worker whose checkout went, or that never had one, restores what the stage rests on too.
    shutil.rmtree(folder)
    caplog.clear()
    assert run_stage(settings, plan, "train@color") == "restored"
    assert "train@color: restored from the DVC cache" in caplog.text
    assert (folder / "split" / "all.txt").exists()
    assert runs(settings) == ["split", "train-color"]


@pytest.mark.slow
def test_overrides_reach_the_stage(settings: Settings, plan: Plan) -> None:
    plan = Plan(commit=plan.commit, overrides=("train.epochs=77",))
    run_stage(settings, plan, "train@style")
    assert runs(settings) == ["split", "train-style"]
    made = (checkout(settings, plan) / "models" / "style.txt").read_text()
    assert made.startswith("train-style 77")


@pytest.mark.slow
def test_two_stages_run_at_once_and_one_stage_twice_runs_once(
    settings: Settings, plan: Plan
) -> None:
    run_stage(settings, plan, "split")
    for group in ("color", "style"):
        (settings.home / f"wait-train-{group}").touch()
    outcomes: list[str] = []

    def run(stage: str) -> None:
        outcomes.append(run_stage(settings, plan, stage, patience=60))

    threads = [
        threading.Thread(target=run, args=(f"train@{group}",))
        for group in ("color", "style", "style")
    ]
    for thread in threads:
        thread.start()
    until(
        lambda: all(
            (settings.home / f"wait-train-{g}.reached").exists() for g in ("color", "style")
        )
    )
    for group in ("color", "style"):
        (settings.home / f"wait-train-{group}").unlink()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["ran", "ran", "unchanged"]
    assert sorted(runs(settings)) == ["split", "train-color", "train-style"]


@pytest.mark.slow
def test_a_stage_kept_busy_for_too_long_fails_in_a_way_that_may_pass(
    settings: Settings, plan: Plan
) -> None:
    (settings.home / "wait-split").touch()
    first = threading.Thread(target=run_stage, args=(settings, plan, "split"))
    first.start()
    until((settings.home / "wait-split.reached").exists)
    with pytest.raises(TransientPipelineError, match="kept busy for 1 s"):
        run_stage(settings, plan, "split", patience=1)
    (settings.home / "wait-split").unlink()
    first.join()
    assert runs(settings) == ["split"]


@pytest.mark.slow
def test_a_worker_restores_what_another_computed_through_dvcs_remote(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also what git keeps and the remote would not get by `dvc push`."""
    path = settings.repo / "dvc.yaml"
    outs = 'outs: ["models/${key}.txt"]'
    counted = path.read_text().replace(
        outs, f'{outs[:-1]}, "models/${{key}}.json": {{cache: false}}]'
    )
    path.write_text(
        counted.replace("all.txt\n      deps", "all.txt && echo 1 > models/${key}.json\n      deps")
    )
    dvc(settings.repo, "remote", "add", "--default", "shared", str(tmp_path / "remote"))
    dvc(settings.repo, "push", "--quiet")
    git(settings.repo, "commit", "--quiet", "-am", "A metric")
    other = replace(settings, repo=tmp_path / "other", home=settings.home / "other")
    git(tmp_path, "clone", "--quiet", str(settings.repo), str(other.repo))
    plan = Plan(commit=git(settings.repo, "rev-parse", "HEAD"))

    assert run_stage(settings, plan, "train@color") == "ran"
    assert run_stage(other, plan, "train@color") == "restored"
    assert not (other.home / "runs.txt").exists()
    (color,) = (path.parent for path in other.checkouts.rglob("color.json"))
    assert (color / "color.txt").read_text().startswith("train-color")
    assert "DVC's remote fails" not in caplog.text

    # It need not be so.
    alone = replace(other, home=settings.home / "alone", share_results=False)
    before = set((tmp_path / "remote").rglob("*"))
    assert run_stage(alone, plan, "train@detail") == "ran"
    assert set((tmp_path / "remote").rglob("*")) == before

    # A remote that is away costs time, not the training.
    shutil.rmtree(tmp_path / "remote")
    (tmp_path / "remote").write_text("not a folder")
    assert run_stage(other, plan, "train@style") == "ran"
    assert runs(other) == ["train-style"]
    assert "train@style: DVC's remote fails" in caplog.text


@pytest.mark.slow
def test_what_a_killed_stage_left_is_not_taken_for_its_outputs(
    settings: Settings, plan: Plan
) -> None:
    (checkout(settings, plan) / "split").mkdir()
    with materialised(settings, plan, "split") as folder:
        assert (folder / "split" / "all.txt").is_file()
    with materialised(settings, plan, "split"):
        pass
    assert runs(settings) == ["split"]


@pytest.mark.slow
def test_a_stage_that_fails_says_its_last_lines(settings: Settings, plan: Plan) -> None:
    (settings.home / "fail-split").write_text("labels.csv row 7, column 'boot': 'yes?' is wrong")
    with pytest.raises(PipelineError, match="row 7, column 'boot'") as caught:
        run_stage(settings, plan, "split")
    assert not isinstance(caught.value, TransientPipelineError)
    with pytest.raises(PipelineError, match="'train@sizes' not found"):
        run_stage(settings, plan, "train@sizes")


@pytest.mark.slow
def test_a_run_that_is_killed_takes_its_stage_along(settings: Settings, plan: Plan) -> None:
    program = (
        "import signal\n"
        "signal.signal(signal.SIGINT, signal.SIG_DFL)\n"  # as in a task of Airflow
        "from shoetagger.config import settings\n"
        "from shoetagger.pipeline import plan, repro\n"
        "s = settings.Settings.from_environment()\n"
        f"repro.run_stage(s, plan.Plan(commit={plan.commit!r}), 'split')\n"
    )
    wait, reached = (settings.home / name for name in ("wait-split", "wait-split.reached"))
    wait.touch()
    for number in (signal.SIGKILL, signal.SIGINT):
        worker = subprocess.Popen(
            [sys.executable, "-c", program], env=os.environ | settings.as_environment()
        )
        until(reached.exists)
        pid = int((settings.home / "runs.txt").read_text().splitlines()[-1].split()[1])
        worker.send_signal(number)
        worker.wait()
        until(lambda pid=pid: not Path(f"/proc/{pid}").exists())
        reached.unlink()
    # And the next one finds no lock that nobody holds.
    wait.unlink()
    assert run_stage(settings, plan, "split", patience=20) == "ran"


@pytest.mark.slow
def test_of_dvcs_cache_goes_what_no_commit_and_no_checkout_names(settings: Settings) -> None:
    repo = settings.repo
    objects = repo / ".dvc" / "cache" / "files" / "md5"
    stray = objects / "ab" / ("c" * 30)
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"of nobody")
    plan = prepare(repo)
    run_stage(settings, plan, "split")
    before = set(objects.rglob("*"))
    (repo / "data" / "labels.csv").write_text("image_name,black\na.jpg,0\n")
    add_data(repo)
    git(repo, "commit", "--quiet", "-am", "Other labels")
    of_data = set(objects.rglob("*")) - before

    assert cache.collect(settings, dry_run=True) == {stray: 9}
    assert stray.exists()
    # A commit that DVC does not read hinders nothing, unless it is the only one to name some data.
    good = (repo / "dvc.yaml").read_text()
    (repo / "dvc.yaml").write_text("stages: 5")
    git(repo, "commit", "--quiet", "-am", "Broken")
    (repo / "dvc.yaml").write_text(good)
    git(repo, "commit", "--quiet", "-am", "Mended")
    assert cache.collect(settings, dry_run=True) == {stray: 9}
    with (
        checkout_lock.shared(checkout_lock.cache(settings.checkouts)),
        pytest.raises(PipelineError, match="at work here"),
    ):
        cache.collect(settings)
    assert cache.collect(settings) == {stray: 9}
    assert set(objects.rglob("*")) >= (before | of_data) - {stray, stray.parent}

    # Once its checkout is pruned, what a stage made can be made again, and goes; no data does.
    assert cache.collect(settings) == {}
    assert prune(settings.checkouts, 0) == [plan.name]
    assert len(cache.collect(settings)) == 2  # a folder and the file in it
    again = prepare(repo, "HEAD~3")
    assert (checkout(settings, again) / "data" / "labels.csv").read_text().endswith(",1\n")
    run_stage(settings, again, "split")

    with Repo(str(repo)) as opened, opened.config.edit("local") as config:
        config["cache"]["dir"] = str(settings.home / "elsewhere")
    with pytest.raises(PipelineError, match=r"others may use it: `dvc gc`"):
        cache.collect(settings)


def test_data_of_a_commit_that_dvc_does_not_read_stays(settings: Settings) -> None:
    repo = settings.repo
    before = data_revision(repo), (repo / "dvc.yaml").read_text()
    (repo / "data" / "labels.csv").write_text("image_name,black\na.jpg,0\n")
    add_data(repo)
    (repo / "dvc.yaml").write_text("stages: 5")
    git(repo, "commit", "--quiet", "-am", "Other labels, and a broken dvc.yaml")
    git(repo, "checkout", "--quiet", "HEAD~1", "--", ".")
    git(repo, "commit", "--quiet", "-am", "As before")
    assert (data_revision(repo), (repo / "dvc.yaml").read_text()) == before
    with pytest.raises(PipelineError, match="data that a commit names"):
        cache.collect(settings)


@pytest.mark.slow
def test_a_faulty_data_dvc_stops_cleaning_in_the_workspace_alone(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor does DVC complain of what old commits never made."""
    repo = settings.repo
    good = (repo / "data.dvc").read_text()
    faulty = [f"<<<<<<< HEAD\n{good}=======\n{good}>>>>>>> theirs\n", "outs:\n- path: data\n", ""]
    for text in faulty:
        (repo / "data.dvc").write_text(text)
        git(repo, "commit", "--quiet", "-am", "Faulty")
    (repo / "data.dvc").write_text(good)
    git(repo, "commit", "--quiet", "-am", "Mended")
    assert cache.collect(settings) == {}
    assert "split" not in caplog.text
    for text in faulty:
        (repo / "data.dvc").write_text(text)
        with pytest.raises(PipelineError, match=r"data\.dvc"):
            cache.collect(settings)
