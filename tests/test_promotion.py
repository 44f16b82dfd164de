"""Registry and store move together, or say why not."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from bundles import write_bundle
from PIL import Image

from shoetagger import params as parameters
from shoetagger import pipeline, promotion
from shoetagger.engine import Engine
from shoetagger.images import tagging_view
from shoetagger.model import Bundle, file_sha256
from shoetagger.pipeline import Plan
from shoetagger.promotion import CHALLENGER, CHAMPION, Comparison, PromotionError
from shoetagger.registry import Registry, Version
from shoetagger.settings import Settings
from shoetagger.split import side, write_split
from shoetagger.store import MoveConflict, Store
from shoetagger.thresholds import decide
from shoetagger.tracking import prepare

ROOT = Path(__file__).parents[1]
TAGS = ("black", "white")

pytestmark = pytest.mark.slow  # a real registry, and a checkout for every test


def run(folder: Path, *command: str) -> None:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
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
    document["evaluate"]["min_positives"] = 3
    (repo / "params.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    shutil.copy(ROOT / "dvc.yaml", repo)
    for command in (
        ["git", "init", "-q"], ["dvc", "init", "-q"], ["dvc", "add", "-q", "data"],
        ["git", "add", "-A"], ["git", "commit", "-qm", "A project"],
    ):  # fmt: skip
        run(repo, *command)
    prepare(f"sqlite:///{home / 'mlflow.db'}")
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
    found = pipeline.prepare(settings)
    pipeline.checkout(settings, found)
    return found


@pytest.fixture
def trained(settings: Settings, plan: Plan) -> Callable[[int], Bundle]:
    """Return what leaves in the checkout what the stages leave there, for a seed."""
    checkout = pipeline.checkout(settings, plan)
    made = pipeline.outputs(checkout, "evaluate@color")

    def train(seed: int) -> Bundle:
        directory = made["bundle.json"].parent
        bundle = write_bundle(directory, "color", TAGS, head_seed=seed)
        made["color.json"].parent.mkdir(exist_ok=True)
        figures = {"macro_f1": 0.5, "frequency_macro_f1": 0.1, "validation": None, "crossval": None}
        made["color.json"].write_text(json.dumps(figures))
        made["figures"].mkdir(parents=True, exist_ok=True)
        (made["figures"] / "sheet.png").write_bytes(b"")
        made["tags.csv"].parent.mkdir(parents=True, exist_ok=True)
        made["tags.csv"].write_text("tag,f1\n")
        return bundle

    return train


def label_as_said_by(settings: Settings, plan: Plan, seed: int) -> Bundle:
    """Leave a bundle that says each tag of half the pictures, and make that the truth."""
    checkout = pipeline.checkout(settings, plan)
    directory = pipeline.outputs(checkout, "evaluate@color")["bundle.json"].parent
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
    table = pd.DataFrame(decide(scores, bundle.thresholds), columns=list(TAGS))
    table.insert(0, "image_name", [f.name for f in files])
    table.insert(1, "image_id", [held_out_id(settings, f.name) for f in files])
    table.insert(2, "side", "validation")
    table.insert(3, "fold", 0)
    folder = pipeline.outputs(checkout, "split")["split"]
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
        return store.live().get("color")


def champion(settings: Settings) -> str | None:
    version = Registry(settings.tracking_uri, settings.artifacts).by_alias("color", CHAMPION)
    return version.digest if version else None


def passed(settings: Settings, plan: Plan, bundle: Bundle) -> Comparison:
    """Register a trained bundle and let it pass against what is live, whatever it is worth."""
    challenger = promotion.register(settings, plan, "color")
    assert challenger.digest == bundle.digest
    before = live(settings)
    return Comparison(
        "color", bundle.digest, challenger.version, before, None, True, ("for the test",), {}
    )


def promoted(settings: Settings, plan: Plan, bundle: Bundle) -> None:
    promotion.promote(settings, plan, passed(settings, plan, bundle), by="test")


def test_the_first_version_is_promoted_without_comparison(
    settings: Settings, plan: Plan, trained: Callable[[int], Bundle]
) -> None:
    bundle = trained(1)
    challenger = promotion.register(settings, plan, "color")
    registry = Registry(settings.tracking_uri, settings.artifacts)
    named = registry.by_alias("color", CHALLENGER)
    assert named is not None
    assert named.digest == bundle.digest == challenger.digest
    assert named.tags["git_commit"] == plan.commit
    comparison = promotion.compare(settings, plan, "color", challenger.digest)
    assert comparison.passes
    assert comparison.champion is None
    assert Comparison.from_dict(json.loads(json.dumps(comparison.as_dict()))) == comparison
    promotion.promote(settings, plan, comparison, by="someone", why="because")
    assert live(settings) == champion(settings) == bundle.digest
    with Store(settings.store_url) as store:
        (move,) = store.history("color")
    assert (move.by, move.why, move.state) == ("someone", "because", "done")
    assert move.data_revision == pipeline.data_revision(pipeline.checkout(settings, plan))
    # A task that is tried again finds its work done.
    promotion.promote(settings, plan, comparison, by="someone")
    with Store(settings.store_url) as store:
        assert len(store.history("color")) == 1


def test_a_worse_challenger_is_stopped_and_a_better_one_passes(
    settings: Settings, plan: Plan, trained: Callable[[int], Bundle]
) -> None:
    bad = trained(1)
    promoted(settings, plan, bad)
    trained(2)
    good = label_as_said_by(settings, plan, seed=2)
    promotion.register(settings, plan, "color")
    better = promotion.compare(settings, plan, "color", good.digest)
    assert better.passes
    assert better.figures["challenger_macro_f1"] == 1.0
    assert better.figures["champion_macro_f1"] < 0.9
    promotion.promote(settings, plan, better, by="test")

    trained(1)
    promotion.register(settings, plan, "color")
    worse = promotion.compare(settings, plan, "color", bad.digest)
    assert not worse.passes
    assert "worse by more than" in worse.reasons[0]
    with pytest.raises(PromotionError, match="did not pass the gate"):
        promotion.promote(settings, plan, worse, by="test")
    assert live(settings) == champion(settings) == good.digest


def test_the_champion_itself_is_no_challenger(
    settings: Settings, plan: Plan, trained: Callable[[int], Bundle]
) -> None:
    bundle = trained(1)
    promoted(settings, plan, bundle)
    comparison = promotion.compare(settings, plan, "color", bundle.digest)
    assert not comparison.passes
    assert "is the champion already" in comparison.reasons[0]


def test_a_promotion_is_refused_when_the_champion_moved_meanwhile(
    settings: Settings, plan: Plan, trained: Callable[[int], Bundle]
) -> None:
    promoted(settings, plan, trained(1))
    comparison = passed(settings, plan, trained(3))
    second = trained(2)
    promoted(settings, plan, second)
    with pytest.raises(MoveConflict, match="moved meanwhile"):
        promotion.promote(settings, plan, comparison, by="test")
    assert live(settings) == champion(settings) == second.digest


def test_rolling_back_moves_alias_and_pointer_together(
    settings: Settings, plan: Plan, trained: Callable[[int], Bundle]
) -> None:
    first = trained(1)
    promoted(settings, plan, first)
    second = trained(2)
    promoted(settings, plan, second)
    assert promotion.rollback(settings, "color", to=None, by="me", why="worse on sandals") == "1"
    assert live(settings) == champion(settings) == first.digest
    with Store(settings.store_url) as store:
        assert store.chain("color") == [first.digest]
    with pytest.raises(PromotionError, match="no version before 1"):
        promotion.rollback(settings, "color", to=None, by="me", why="")
    with pytest.raises(PromotionError, match="no version 9: the versions are 1, 2"):
        promotion.rollback(settings, "color", to="9", by="me", why="")
    with pytest.raises(PromotionError, match="has no champion"):
        promotion.rollback(settings, "style", to=None, by="me", why="")


def test_a_move_that_was_cut_off_is_completed(
    settings: Settings, plan: Plan, trained: Callable[[int], Bundle]
) -> None:
    promoted(settings, plan, trained(1))
    second = trained(2)
    promotion.register(settings, plan, "color")
    with Store(settings.store_url) as store:  # the row is written, and then the lights go out
        store.begin_move("color", second.digest, kind="promote", by="test", why="")
        promotion.reconcile(settings, store, ["color"])
    assert live(settings) == champion(settings) == second.digest


def test_an_alias_moved_by_hand_is_accepted_and_written_down(
    settings: Settings, plan: Plan, trained: Callable[[int], Bundle]
) -> None:
    promoted(settings, plan, trained(1))
    second = trained(2)
    number = promotion.register(settings, plan, "color").version
    Registry(settings.tracking_uri, settings.artifacts).set_alias("color", CHAMPION, number)
    with Store(settings.store_url) as store:
        promotion.reconcile(settings, store, ["color"])
        promotion.reconcile(settings, store, ["color"])
        moves = store.history("color")
    assert live(settings) == second.digest
    assert [move.kind for move in moves] == ["promote", "manual"]


def test_a_version_taken_back_is_not_promoted_again_by_the_next_training(
    settings: Settings, plan: Plan, trained: Callable[[int], Bundle]
) -> None:
    promoted(settings, plan, trained(1))
    second = trained(2)
    promoted(settings, plan, second)
    promotion.rollback(settings, "color", to=None, by="me", why="worse on sandals")
    again = promotion.compare(settings, plan, "color", second.digest)
    assert not again.passes
    assert "taken back" in again.reasons[0]
    assert "worse on sandals" in again.reasons[0]


def test_a_champion_of_another_split_is_not_compared(
    settings: Settings, plan: Plan, trained: Callable[[int], Bundle]
) -> None:
    promoted(settings, plan, trained(1))
    other = pipeline.prepare(settings, overrides=["split.validation=0.4"])
    digest = trained(2).digest
    promotion.register(settings, plan, "color")
    comparison = promotion.compare(settings, other, "color", digest)
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
            promotion.promote(settings, plan, comparison, by="test")
            return found
        with Store(settings.store_url) as store:
            store.begin_move("color", second.digest, kind="promote", by="test", why="")
        return promotion._version_of(self, "color", second.digest)

    monkeypatch.setattr(Registry, "by_alias", reading_late)
    with Store(settings.store_url) as store:
        promotion.reconcile(settings, store, ["color"])
        assert "manual" not in [move.kind for move in store.history("color")]
        promotion.reconcile(settings, store, ["color"])
    assert live(settings) == champion(settings) == second.digest


def test_an_empty_registry_is_no_reason_to_forget_the_champions(
    settings: Settings, plan: Plan, trained: Callable[[int], Bundle], tmp_path: Path
) -> None:
    bundle = trained(1)
    promoted(settings, plan, bundle)
    other = replace(settings, tracking_uri=f"sqlite:///{tmp_path / 'other.db'}")
    prepare(other.tracking_uri)
    with Store(settings.store_url) as store:
        promotion.reconcile(other, store, ["color"])
    assert live(settings) == bundle.digest


def test_an_alias_taken_away_by_hand_removes_the_group(
    settings: Settings, plan: Plan, trained: Callable[[int], Bundle]
) -> None:
    promoted(settings, plan, trained(1))
    Registry(settings.tracking_uri, settings.artifacts).drop_alias("color", CHAMPION)
    with Store(settings.store_url) as store:
        promotion.reconcile(settings, store, ["color"])
        assert [move.kind for move in store.history("color")] == ["promote", "remove"]
    assert live(settings) is None


def test_a_damaged_cache_is_fetched_again(
    settings: Settings, plan: Plan, trained: Callable[[int], Bundle]
) -> None:
    bundle = trained(1)
    promoted(settings, plan, bundle)
    weights = promotion.bundle_directory(settings, bundle.digest) / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    promotion.bundle_directory(settings, bundle.digest)
    assert file_sha256(weights) == bundle.weights_sha256


def test_a_bundle_that_is_nowhere_says_what_to_do(settings: Settings) -> None:
    with pytest.raises(PromotionError, match=r"neither in .* nor in the registry"):
        promotion.bundle_directory(settings, "0" * 64)
