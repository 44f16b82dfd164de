"""Registry and store move together, or say why not."""

from __future__ import annotations

import io
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from helpers.bundles import SMALL, write_bundle
from helpers.installation import bundle_directory, compare, promote, reconcile, register, rollback
from mlflow import MlflowClient
from PIL import Image

from shoetagger.config import params as parameters
from shoetagger.config.settings import Settings
from shoetagger.images.views import tagging_view
from shoetagger.inference.bundle import Bundle
from shoetagger.inference.decision import predict
from shoetagger.inference.engine import Engine
from shoetagger.learning.dataset.split import side
from shoetagger.learning.dataset.tables import read_split, write_predictions, write_split
from shoetagger.learning.evaluation.predictions import Predictions
from shoetagger.network.digests import file_sha256
from shoetagger.orchestration.nightly import night
from shoetagger.pipeline import checkout as checkout_module
from shoetagger.pipeline import plan as plan_module
from shoetagger.pipeline.dvc_files import data_revision, outputs
from shoetagger.pipeline.plan import Plan
from shoetagger.pipeline.repro import _done
from shoetagger.promotion import moves as moves_module
from shoetagger.promotion.compare import Comparison
from shoetagger.promotion.moves import Decision, _point
from shoetagger.promotion.versions import PromotionError
from shoetagger.store.rows import MoveConflict
from shoetagger.store.store import Store
from shoetagger.tracking.connection import prepare
from shoetagger.tracking.registry import CHALLENGER, CHAMPION, Registry, Version

ROOT = Path(__file__).parents[2]
TAGS = ("black", "white")

pytestmark = pytest.mark.slow  # a real registry, and a checkout for every test


def run(folder: Path, *command: str) -> None:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, empty_mlflow: Path) -> Path:
    """A small committed project of real pictures, and a state with migrated databases."""
    folder = tmp_path_factory.mktemp("promotion")
    repo, home = folder / "repo", folder / "home"
    (repo / "data" / "images").mkdir(parents=True)
    home.mkdir()
    rng = np.random.default_rng(0)
    for i in range(24):
        pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(repo / "data" / "images" / f"{i:02}.png")
    (repo / "data" / "labels.csv").write_text("image_name,black,white\n")
    document = yaml.safe_load((ROOT / "params.yaml").read_text())
    document["groups"] = {"color": {"tags": list(TAGS)}}
    document["promote"]["min_positives"] = 3
    document["promote"]["bootstrap"] = 50
    (repo / "params.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    shutil.copy(ROOT / "dvc.yaml", repo)
    for command in (
        ["git", "init", "-q"], ["dvc", "init", "-q"], ["dvc", "add", "-q", "data"],
        ["git", "add", "-A"], ["git", "commit", "-qm", "A project"],
    ):  # fmt: skip
        run(repo, *command)
    shutil.copy(empty_mlflow, home / "mlflow.db")
    with Store(f"sqlite:///{home / 'store.db'}") as store:
        store.migrate()
    return folder


@pytest.fixture
def settings(template: Path, tmp_path: Path) -> Settings:
    home = tmp_path / "home"
    shutil.copytree(template / "home", home)
    return Settings(
        repo=template / "repo",
        home=home,
        inbox=tmp_path,
        store_url=f"sqlite:///{home / 'store.db'}",
        tracking_uri=f"sqlite:///{home / 'mlflow.db'}",
        device="cpu",
    )


@pytest.fixture
def plan(settings: Settings) -> Plan:
    found = plan_module.prepare(settings.repo)
    checkout_module.checkout(settings, found)
    return found


@pytest.fixture
def params_file(settings: Settings) -> Iterator[Path]:
    """The installation's parameters, to change: the tests share the project."""
    kept = settings.params_file.read_text()
    yield settings.params_file
    settings.params_file.write_text(kept)


@pytest.fixture
def trained(settings: Settings, plan: Plan) -> Callable[[int], Bundle]:
    """Return what leaves in the checkout what the stages leave there, for a seed."""
    checkout = checkout_module.checkout(settings, plan)
    made = outputs(checkout, "evaluate@color")
    crossval = outputs(checkout, "crossval@color")["color.csv"]
    split = outputs(checkout, "split")["split"]
    for stage in ("split", "crossval@color", "evaluate@color"):
        _done(checkout, stage).parent.mkdir(parents=True, exist_ok=True)
        _done(checkout, stage).touch()

    def train(seed: int) -> Bundle:
        directory = made["bundle.json"].parent
        bundle = write_bundle(directory, "color", TAGS, head_seed=seed)
        made["color.json"].parent.mkdir(exist_ok=True)
        # Twelve pictures: black is found on half of its pictures, white never.
        truth = np.array([[1, 0]] * 6 + [[0, 1]] * 6, dtype=np.uint8)
        scores = np.array([[0.9, 0.1]] * 3 + [[0.1, 0.1]] * 9)
        evaluated = Predictions(np.arange(12), truth, scores[None], np.full(2, 0.5), none_below=0.5)
        rule = parameters.load(settings.params_file).evaluate
        report = evaluated.report(TAGS, rule, seed=1)
        metrics = {"macro_f1": report["macro_f1"], "frequency_macro_f1": 0.1, "crossval": None}
        made["color.json"].write_text(json.dumps(metrics | {"validation": report}))
        made["color.summary.json"].write_text("{}")
        made["figures"].mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), "teal").save(made["figures"] / "validation_sheet.png")
        for plot in ("tags.csv", "confusion.csv", "curve.csv", "reliability.csv"):
            made[plot].parent.mkdir(parents=True, exist_ok=True)
            made[plot].write_text("")
        made["color.csv"].parent.mkdir(exist_ok=True)
        names = pd.Series([f"{i:02}.png" for i in range(12)])
        write_predictions([evaluated.table(names, "validation", TAGS)], made["color.csv"])
        crossval.parent.mkdir(exist_ok=True)
        crossval.write_text("image_name,fold,black,white\n")
        split.mkdir(exist_ok=True)
        if not (split / "color.csv").exists():
            (split / "color.csv").write_text("image_name,image_id,side,black,white\n")
        return bundle

    return train


def label_as_said_by(settings: Settings, plan: Plan, seed: int) -> Bundle:
    """Leave a bundle that says each tag of half the pictures, and make that the truth."""
    checkout = checkout_module.checkout(settings, plan)
    directory = outputs(checkout, "evaluate@color")["bundle.json"].parent
    files = sorted((checkout / "data" / "images").iterdir())
    pixels = [Image.open(file).convert("RGB") for file in files]
    engine = Engine([directory], "cpu")
    transform = engine.bundles[0].transform
    views = np.stack([tagging_view(picture, transform) for picture in pixels])
    scores = engine.score({transform: views})[engine.bundles[0].digest]
    middle = np.median(scores.astype(np.float64), axis=0)
    bundle = write_bundle(
        directory, "color", TAGS, head_seed=seed, thresholds=tuple(map(float, middle))
    )
    table = pd.DataFrame(predict(scores, bundle.thresholds), columns=list(TAGS))
    table.insert(0, "image_name", [f.name for f in files])
    table.insert(1, "image_id", [held_out_id(settings, f.name) for f in files])
    table.insert(2, "side", "validation")
    table.insert(3, "fold", 0)
    folder = outputs(checkout, "split")["split"]
    folder.mkdir(exist_ok=True)
    write_split(table, folder / "color.csv")
    return bundle


def held_out_id(settings: Settings, name: str) -> str:
    """Return an image id that the hash puts on the validation side."""
    split = parameters.load(settings.params_file).split
    ids = (f"{name} {i}" for i in itertools.count())
    return next(found for found in ids if side(found, split) == "validation")


def live(settings: Settings) -> str | None:
    with Store(settings.store_url) as store:
        return store.ledger.live().get("color")


def champion(settings: Settings) -> str | None:
    version = Registry(settings.tracking_uri, settings.artifacts).by_alias("color", CHAMPION)
    return version.digest if version else None


def passed(settings: Settings, plan: Plan, bundle: Bundle) -> Comparison:
    """Register a trained bundle and let it pass against what is live, whatever it is worth."""
    challenger = register(settings, plan, "color")
    assert challenger.digest == bundle.digest
    before = live(settings)
    return Comparison(
        group="color",
        challenger=bundle.digest,
        version=challenger.version,
        champion=before,
        champion_version=None,
        passes=True,
        reasons=("for the test",),
        approval_reason=None,
        hours=1.0,
        metrics={},
        data_revision=data_revision(checkout_module.checkout(settings, plan)),
        mlflow_run="the run",
        text="",
        report=None,
    )


def promoted(settings: Settings, plan: Plan, bundle: Bundle) -> None:
    promote(settings, passed(settings, plan, bundle), None, by="test")


def test_a_first_version_shows_how_it_did_by_itself(
    settings: Settings, plan: Plan, trained: Callable[[int], Bundle]
) -> None:
    trained(1)
    challenger = register(settings, plan, "color", dag_run="http://airflow/dags/train/runs/1")
    comparison = compare(settings, plan, "color", challenger.digest)
    registry = Registry(settings.tracking_uri, settings.artifacts)
    version = registry.by_number("color", challenger.version)
    assert version is not None
    told = json.loads(registry.read_file(version, "comparison.json") or b"")["by_itself"]
    assert told["pictures"] == 12
    black, white = told["tags"]
    assert black == {"tag": "black", "positives": 6, "predicted": 3, "right": 3, "f1": 0.6667}
    assert white["f1"] == 0.0
    (warning,) = comparison.warnings
    assert warning.startswith("F1 of white is 0.000 on 6 positives")
    assert "| black | 6 | 3 | 3 | 0.667 |" in comparison.text
    page = (registry.read_file(version, "comparison.html") or b"").decode()
    assert "By itself, on 12 validation pictures" in page
    assert 'class="warning"' in page
    assert page.count("data:image/png;base64,") == 1

    client = MlflowClient(settings.tracking_uri)
    card = client.get_model_version(version.name, version.number).description
    assert "**black**: right in 3 of 3, found 3 of 6; learned from 0" in card
    assert f"- backbone: `{SMALL}`\n" in card
    (child,) = client.search_runs([client.get_experiment_by_name("shoetagger").experiment_id],
                                  "attributes.run_name = 'register color'")  # fmt: skip
    parent = client.get_run(child.data.tags["mlflow.parentRunId"])
    assert parent.info.run_name == f"training {plan.commit[:12]}"
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["validation/macro_f1/color"] == told["macro_f1"]
    assert not any("black" in name for name in parent.data.metrics)
    assert "(http://airflow/dags/train/runs/1)" in parent.data.tags["mlflow.note.content"]


def test_the_first_version_is_promoted_without_comparison(
    settings: Settings, plan: Plan, trained: Callable[[int], Bundle]
) -> None:
    bundle = trained(1)
    challenger = register(settings, plan, "color")
    registry = Registry(settings.tracking_uri, settings.artifacts)
    named = registry.by_alias("color", CHALLENGER)
    assert named is not None
    assert named.digest == bundle.digest == challenger.digest
    assert named.tags["git_commit"] == plan.commit
    comparison = compare(settings, plan, "color", challenger.digest)
    assert comparison.passes
    assert comparison.champion is None
    assert Comparison.model_validate_json(comparison.model_dump_json()) == comparison
    promote(settings, comparison, None, by="someone")
    assert live(settings) == champion(settings) == bundle.digest
    with Store(settings.store_url) as store:
        (move,) = store.ledger.history("color")
    assert (move.by, move.state) == ("someone", "done")
    assert move.why.startswith("the first version of its group (gate: macro_f1_margin 0.02, ")
    assert move.mlflow_run == named.run_id
    assert move.data_revision == data_revision(checkout_module.checkout(settings, plan))
    # A task that is tried again finds its work done.
    promote(settings, comparison, None, by="someone")
    with Store(settings.store_url) as store:
        assert len(store.ledger.history("color")) == 1


def test_a_worse_challenger_is_stopped_and_a_better_one_passes(
    settings: Settings, plan: Plan, trained: Callable[[int], Bundle]
) -> None:
    bad = trained(1)
    promoted(settings, plan, bad)
    trained(2)
    good = label_as_said_by(settings, plan, seed=2)
    register(settings, plan, "color")
    better = compare(settings, plan, "color", good.digest)
    assert better.passes
    assert better.metrics["challenger_macro_f1"] == 1.0
    assert better.metrics["champion_macro_f1"] < 0.9
    promote(settings, better, None, by="test")

    trained(1)
    register(settings, plan, "color")
    worse = compare(settings, plan, "color", bad.digest)
    assert not worse.passes
    assert "worse by more than" in worse.reasons[0]
    with pytest.raises(PromotionError, match="did not pass the gate"):
        promote(settings, worse, None, by="test")
    assert live(settings) == champion(settings) == good.digest


def scored_out_of_fold(settings: Settings, plan: Plan, *, right: bool) -> None:
    """Leave a split with one white picture to validate with, and out-of-fold scores of the rest."""
    checkout = checkout_module.checkout(settings, plan)
    path = outputs(checkout, "split")["split"] / "color.csv"
    table = read_split(path)
    table["side"] = ["validation"] * 12 + ["train"] * 12
    table["white"] = ([1] + [0] * 11) + [1] * 6 + [0] * 6
    write_split(table, path)
    learned = table[table["side"] == "train"]
    scores = learned[["image_name", "fold", *TAGS]].copy()
    answers = scores[list(TAGS)] if right else 1 - scores[list(TAGS)]
    scores[list(TAGS)] = answers * 0.9 + 0.05
    scores.to_csv(outputs(checkout, "crossval@color")["color.csv"], index=False)


def test_the_report_tells_of_validation_rare_tags_and_arrivals(
    settings: Settings,
    plan: Plan,
    trained: Callable[[int], Bundle],
    params_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = replace(settings, inbox=tmp_path / "inbox")
    settings.inbox.mkdir()
    for path in (settings.repo / "data" / "images").iterdir():
        shutil.copy(path, settings.inbox)
    (settings.inbox / "00.png").write_bytes((settings.inbox / "01.png").read_bytes())
    trained(2)
    label_as_said_by(settings, plan, seed=2)
    champion = trained(1)
    scored_out_of_fold(settings, plan, right=False)
    promoted(settings, plan, champion)
    night(settings, "night")
    (settings.inbox / "02.png").write_bytes(b"replaced since")
    give_titles(params_file, color="Colours", black="jet black", white="snow white")

    trained(2)
    challenger = label_as_said_by(settings, plan, seed=2)
    scored_out_of_fold(settings, plan, right=True)
    with Store(settings.store_url) as store:
        before = {r.image_id: set(r.groups["color"].tags) for r in store.current.rows(["color"])}
    collected = file_sha256(settings.inbox / "03.png")  # is on the training side today
    path = outputs(checkout_module.checkout(settings, plan), "split")["split"] / "color.csv"
    table = read_split(path)
    more = table.tail(1).assign(image_name="collected.png", image_id=collected)
    write_split(pd.concat([table, more]), path)
    version = register(settings, plan, "color").version
    after = said_by(settings, challenger)
    with Store(settings.store_url) as store:  # people say what the challenger will say
        for image_id, tags in after.items():
            store.corrections.correct(
                image_id, "color", sorted(tags), by="ann", why="", now=datetime.now(UTC)
            )
    loaded: list[str] = []
    predicted: list[str] = []
    load, predict_tags = Engine._load, Engine.predict

    def loading(self, directory, bundle):  # type: ignore[no-untyped-def]
        loaded.append(bundle.digest)
        return load(self, directory, bundle)

    def predicting(self, views, only=None):  # type: ignore[no-untyped-def]
        predictions = predict_tags(self, views, only)
        predicted.extend(predictions)
        return predictions

    monkeypatch.setattr(Engine, "_load", loading)
    monkeypatch.setattr(Engine, "predict", predicting)
    comparison = compare(settings, plan, "color", challenger.digest)
    assert sorted(loaded) == sorted([challenger.digest, champion.digest]), "each is loaded once"
    assert set(predicted) == {challenger.digest}, "the champion's predictions are in the store"

    registry = Registry(settings.tracking_uri, settings.artifacts)
    named = registry.by_alias("color", CHALLENGER)
    assert named is not None
    assert named.number == version
    stored = json.loads(registry.read_file(named, "comparison.json") or b"")
    assert stored["title"] == "Colours: version 2 against version 1"
    assert stored["validation"]["pictures"] == 12
    figures = {row["tag"]: row["f1"] for row in stored["validation"]["tags"]}
    assert figures["white"] is None, "one picture measures nothing"
    assert figures["black"]["challenger"] == 1.0
    (white,) = stored["out_of_fold"]["tags"]
    assert (white["tag"], white["positives"]) == ("white", 6)
    # Below 1: a picture without any tag is given the best one.
    assert white["f1"]["challenger"] > 0.8
    assert white["f1"]["champion"] == 0.0

    arrivals = stored["arrivals"]
    assert (arrivals["pictures"], arrivals["unread"]) == (22, 1)
    assert len(before) == 23
    pairs = [(before[i], after[i]) for i in before if i in after]
    assert arrivals["changed"] == sum(a != b for a, b in pairs) > 0
    for tag, (gained, lost) in arrivals["tags"].items():
        assert gained == sum(tag in b - a for a, b in pairs)
        assert lost == sum(tag in a - b for a, b in pairs)
    assert comparison.metrics["tags_change"] == round(arrivals["share"], 4)

    checked = stored["checked"]
    assert (checked["pictures"], checked["learned"], checked["unread"]) == (len(after) - 1, 1, 0)
    assert checked["macro_f1"]["challenger"] == 1.0
    assert checked["macro_f1"]["champion"] < 1.0
    assert comparison.metrics["challenger_macro_f1_checked"] == 1.0

    page = (registry.read_file(named, "comparison.html") or b"").decode()
    assert f"On {len(after) - 1} arrivals that people checked" in page
    assert f"On {len(after) - 1} arrivals that people checked, without 1 that" in comparison.text
    assert "not measurable" in page
    assert "Rare tags, out of fold on 12 training pictures" in page
    assert "data:image/png;base64," in page
    sheet = registry.read_file(named, "changes.png")
    assert sheet is not None
    assert Image.open(io.BytesIO(sheet)).width > 300
    assert f"{arrivals['changed']} of 22 sampled arrivals change" in comparison.text
    assert "| snow white | 1 | not measurable |" in comparison.text
    assert "<td>snow white</td><td>1</td>" in page
    told = {tag for change in comparison.changed for tag in (*change.gained, *change.lost)}
    assert told
    assert told <= {"jet black", "snow white"}


def give_titles(params_file: Path, **titles: str) -> None:
    """Say what people read, in the installation's own file: it needs no commit."""
    document = yaml.safe_load(params_file.read_text())
    params_file.write_text(yaml.safe_dump(document | {"titles": titles}, sort_keys=False))


def said_by(settings: Settings, bundle: Bundle) -> dict[str, set[str]]:
    """Return image id -> tags that a bundle gives what can be read of the inbox."""
    engine = Engine([bundle_directory(settings, bundle.digest)], "cpu")
    found = {}
    for path in sorted(settings.inbox.iterdir()):
        if path.read_bytes().startswith(b"\x89PNG"):
            picture = Image.open(path).convert("RGB")
            views = {t: tagging_view(picture, t)[None] for t in engine.transforms}
            (answer,) = engine.predict(views)[bundle.digest]
            found[file_sha256(path)] = set(answer.tags)
    return found


def test_the_champion_itself_is_no_challenger(
    settings: Settings, plan: Plan, trained: Callable[[int], Bundle]
) -> None:
    bundle = trained(1)
    promoted(settings, plan, bundle)
    comparison = compare(settings, plan, "color", bundle.digest)
    assert not comparison.passes
    assert "is the champion already" in comparison.reasons[0]


def test_a_version_compared_with_itself_keeps_the_report_by_which_it_was_promoted(
    settings: Settings, plan: Plan, trained: Callable[[int], Bundle]
) -> None:
    bundle = trained(1)
    register(settings, plan, "color")
    promote(settings, compare(settings, plan, "color", bundle.digest), None, by="test")

    def kept() -> tuple[object, list[bytes | None]]:
        registry = Registry(settings.tracking_uri, settings.artifacts)
        version = registry.by_number("color", "1")
        assert version is not None
        with Store(settings.store_url) as store:
            names = ("comparison.json", "comparison.html")
            return store.comparisons.get(bundle.digest), [
                registry.read_file(version, name) for name in names
            ]

    before = kept()
    again = compare(settings, plan, "color", bundle.digest)
    assert again.is_champion
    assert kept() == before
    assert b"the first version of its group" in (before[1][0] or b"")


def test_a_promotion_is_refused_when_the_champion_moved_meanwhile(
    settings: Settings, plan: Plan, trained: Callable[[int], Bundle]
) -> None:
    promoted(settings, plan, trained(1))
    comparison = passed(settings, plan, trained(3))
    second = trained(2)
    promoted(settings, plan, second)
    with pytest.raises(MoveConflict, match="moved meanwhile"):
        promote(settings, comparison, None, by="test")
    assert live(settings) == champion(settings) == second.digest


def test_of_two_promotions_at_once_one_moves_and_the_other_is_refused(
    settings: Settings,
    plan: Plan,
    trained: Callable[[int], Bundle],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    promoted(settings, plan, trained(1))
    first, second = (passed(settings, plan, trained(seed)) for seed in (2, 3))
    point = _point

    def late(*to: object) -> None:
        monkeypatch.undo()
        with pytest.raises(MoveConflict, match="compared with version 1, but version 2 is"):
            promote(settings, second, None, by="the other")
        point(*to)  # type: ignore[arg-type]

    monkeypatch.setattr(moves_module, "_point", late)
    promote(settings, first, None, by="one")
    assert live(settings) == champion(settings) == first.challenger
    with Store(settings.store_url) as store:
        moves = store.ledger.history("color")
    assert [(move.by, move.state) for move in moves] == [("test", "done"), ("one", "done")]


def test_rolling_back_moves_alias_and_pointer_together(
    settings: Settings, plan: Plan, trained: Callable[[int], Bundle]
) -> None:
    first = trained(1)
    promoted(settings, plan, first)
    second = trained(2)
    promoted(settings, plan, second)
    assert rollback(settings, "color", to=None, by="me", why="worse on sandals") == "1"
    assert live(settings) == champion(settings) == first.digest
    with Store(settings.store_url) as store:
        assert store.ledger.chain("color") == [first.digest]
    with pytest.raises(PromotionError, match="no version before 1"):
        rollback(settings, "color", to=None, by="me", why="")
    with pytest.raises(PromotionError, match="no version 9: the versions are 1, 2"):
        rollback(settings, "color", to="9", by="me", why="")
    with pytest.raises(PromotionError, match="has no champion"):
        rollback(settings, "style", to=None, by="me", why="")


def test_a_version_whose_bundle_is_gone_cannot_go_live(
    settings: Settings, plan: Plan, trained: Callable[[int], Bundle]
) -> None:
    first = trained(1)
    promoted(settings, plan, first)
    second = trained(2)
    promoted(settings, plan, second)
    shutil.rmtree(settings.artifacts)
    shutil.rmtree(settings.bundles, ignore_errors=True)
    with pytest.raises(PromotionError, match=r"color: the files of version 1 are gone.*--to"):
        rollback(settings, "color", to="1", by="me", why="")
    assert live(settings) == champion(settings) == second.digest
    MlflowClient(settings.tracking_uri).delete_model_version("shoetagger-color", "1")
    with pytest.raises(PromotionError, match=r"color: version 1 left the registry.*--to"):
        rollback(settings, "color", to="1", by="me", why="")
    with Store(settings.store_url) as store:
        assert store.ledger.pending() == []


def test_a_move_that_was_cut_off_is_completed(
    settings: Settings, plan: Plan, trained: Callable[[int], Bundle]
) -> None:
    promoted(settings, plan, trained(1))
    second = trained(2)
    register(settings, plan, "color")
    with Store(settings.store_url) as store:  # the row is written, and then the lights go out
        store.ledger.begin(
            "color",
            second.digest,
            expect_from=store.ledger.live().get("color"),
            kind="promote",
            by="test",
            why="",
        )
        reconcile(settings, "color")
    assert live(settings) == champion(settings) == second.digest


def test_an_alias_moved_by_hand_is_accepted_and_written_down(
    settings: Settings, plan: Plan, trained: Callable[[int], Bundle]
) -> None:
    promoted(settings, plan, trained(1))
    second = trained(2)
    number = register(settings, plan, "color").version
    Registry(settings.tracking_uri, settings.artifacts).set_alias("color", CHAMPION, number)
    with Store(settings.store_url) as store:
        reconcile(settings, "color")
        reconcile(settings, "color")
        moves = store.ledger.history("color")
    assert live(settings) == second.digest
    assert [move.kind for move in moves] == ["promote", "manual"]


def test_a_version_taken_back_is_not_promoted_again_by_the_next_training(
    settings: Settings, plan: Plan, trained: Callable[[int], Bundle]
) -> None:
    promoted(settings, plan, trained(1))
    second = trained(2)
    promoted(settings, plan, second)
    rollback(settings, "color", to=None, by="me", why="worse on sandals")
    again = compare(settings, plan, "color", second.digest)
    assert not again.passes
    assert "taken back" in again.reasons[0]
    assert "worse on sandals" in again.reasons[0]


def test_pictures_that_either_trained_on_are_left_out_of_the_comparison(
    settings: Settings, plan: Plan, trained: Callable[[int], Bundle]
) -> None:
    trained(2)
    label_as_said_by(settings, plan, seed=2)
    path = outputs(checkout_module.checkout(settings, plan), "split")["split"] / "color.csv"
    today = read_split(path)
    then = today.copy()
    then.loc[:2, "side"] = "train"  # a tag was rare: its pictures were moved
    write_split(then, path)
    champion = trained(1)
    promoted(settings, plan, champion)
    write_split(today, path)
    challenger = trained(2)
    register(settings, plan, "color")
    comparison = compare(settings, plan, "color", challenger.digest)
    assert "On 21 validation pictures, without 3 that one of the two trained on" in comparison.text


def test_gate_and_approval_are_the_installations_whatever_the_commit_says(
    settings: Settings, plan: Plan, trained: Callable[[int], Bundle], params_file: Path
) -> None:
    assert parameters.load(params_file).promote.approval == "never"
    bundle = trained(1)
    register(settings, plan, "color")
    params_file.write_text(params_file.read_text().replace("approval: never", "approval: always"))
    comparison = compare(settings, plan, "color", bundle.digest)
    asked = "every promotion is approved by a person (promote.approval)"
    assert comparison.approval_reason == asked
    assert comparison.gate.endswith("tag_f1_floor 0.05, min_positives 3, approval always")
    assert comparison.gate in comparison.text.replace("\\", "")
    promote(settings, comparison, Decision(approved=True, by="ann", why="good"), by="test")
    with Store(settings.store_url) as store:
        (move,) = store.ledger.history("color")
    assert move.why.endswith(f"(gate: {comparison.gate})")


def test_a_champion_of_another_split_is_not_compared(
    settings: Settings, plan: Plan, trained: Callable[[int], Bundle]
) -> None:
    promoted(settings, plan, trained(1))
    other = plan_module.prepare(settings.repo, overrides=["split.validation=0.4"])
    digest = trained(2).digest
    register(settings, plan, "color")
    comparison = compare(settings, other, "color", digest)
    assert not comparison.passes
    assert "another split.seed or split.validation" in comparison.reasons[0]


@pytest.mark.parametrize("moment", ["before the alias is read", "between row and alias"])
def test_a_night_that_starts_amid_a_promotion_takes_no_alias_for_one_moved_by_hand(
    settings: Settings,
    plan: Plan,
    trained: Callable[[int], Bundle],
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
) -> None:
    promoted(settings, plan, trained(1))
    second = trained(2)
    comparison = passed(settings, plan, second)
    read = Registry.by_alias

    def reading_late(self: Registry, group: str, alias: str) -> Version | None:
        found = read(self, group, alias)
        monkeypatch.undo()
        if moment == "before the alias is read":
            promote(settings, comparison, None, by="test")
            return found
        with Store(settings.store_url) as store:
            store.ledger.begin(
                "color",
                second.digest,
                expect_from=store.ledger.live().get("color"),
                kind="promote",
                by="test",
                why="",
            )
        return self.version_with("color", second.digest)

    monkeypatch.setattr(Registry, "by_alias", reading_late)
    with Store(settings.store_url) as store:
        reconcile(settings, "color")
        assert "manual" not in [move.kind for move in store.ledger.history("color")]
        reconcile(settings, "color")
    assert live(settings) == champion(settings) == second.digest


def test_an_empty_registry_is_no_reason_to_forget_the_champions(
    settings: Settings, plan: Plan, trained: Callable[[int], Bundle], tmp_path: Path
) -> None:
    bundle = trained(1)
    promoted(settings, plan, bundle)
    other = replace(settings, tracking_uri=f"sqlite:///{tmp_path / 'other.db'}")
    prepare(other.tracking_uri)
    reconcile(other, "color")
    assert live(settings) == bundle.digest


def test_an_alias_taken_away_by_hand_removes_the_group(
    settings: Settings, plan: Plan, trained: Callable[[int], Bundle]
) -> None:
    promoted(settings, plan, trained(1))
    Registry(settings.tracking_uri, settings.artifacts).drop_alias("color", CHAMPION)
    with Store(settings.store_url) as store:
        reconcile(settings, "color")
        assert [move.kind for move in store.ledger.history("color")] == ["promote", "remove"]
    assert live(settings) is None


def test_after_an_alias_was_taken_away_a_person_decides_which_version_is_next(
    settings: Settings, plan: Plan, trained: Callable[[int], Bundle]
) -> None:
    removed = trained(1)
    promoted(settings, plan, removed)
    registry = Registry(settings.tracking_uri, settings.artifacts)
    registry.drop_alias("color", CHAMPION)
    reconcile(settings, "color")
    itself = compare(settings, plan, "color", removed.digest)
    assert not itself.passes
    assert "version 1 was taken back on" in itself.reasons[0]
    assert "move the alias by hand" in itself.reasons[0]

    other = trained(2)
    register(settings, plan, "color")
    comparison = compare(settings, plan, "color", other.digest)
    assert comparison.passes
    assert comparison.approval_reason == comparison.reasons[0]
    assert "no champion to meet: the group's was removed on" in comparison.reasons[0]
    with pytest.raises(PromotionError, match="was not approved by anybody"):
        promote(settings, comparison, None, by="test")
    promote(settings, comparison, Decision(approved=True, by="ann", why="good"), by="test")
    assert live(settings) == champion(settings) == other.digest


def test_a_damaged_cache_is_fetched_again(
    settings: Settings, plan: Plan, trained: Callable[[int], Bundle]
) -> None:
    bundle = trained(1)
    promoted(settings, plan, bundle)
    weights = bundle_directory(settings, bundle.digest) / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    bundle_directory(settings, bundle.digest)
    assert file_sha256(weights) == bundle.weights_sha256


def test_a_bundle_that_is_nowhere_says_what_to_do(settings: Settings) -> None:
    with pytest.raises(PromotionError, match=r"neither in .* nor in the registry"):
        bundle_directory(settings, "0" * 64)
