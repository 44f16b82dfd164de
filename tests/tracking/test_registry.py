"""Registered models: once for each bundle, whole, and usable by who has never seen this repo."""

from __future__ import annotations

import base64
import dataclasses
import importlib.metadata
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import fork_server
from helpers.bundles import random_model
from helpers.detector import write_detector
from helpers.imported import files_run_by
from helpers.ports import free_port
from mlflow import MlflowClient
from PIL import Image

from shoetagger.errors import TransientError
from shoetagger.images.decode import Limits, open_image
from shoetagger.images.detector import Detector
from shoetagger.images.views import Transform, tagging_view
from shoetagger.inference.bundle import BUNDLE_FILE, Bundle, load_bundle, save_bundle
from shoetagger.inference.engine import Engine
from shoetagger.network.digests import prefix_digests
from shoetagger.network.layers import WEIGHTS_FILE, ModelError
from shoetagger.network.weights import save_weights
from shoetagger.promotion.moves import reconcile
from shoetagger.store.store import Store
from shoetagger.tracking import packaging, registration
from shoetagger.tracking import registry as registry_module
from shoetagger.tracking.connection import MLflowRefused, MLflowUnavailable
from shoetagger.tracking.packaging import requirements, served_sources
from shoetagger.tracking.registry import Registry, RegistryError, Version, _first_with
from shoetagger.tracking.run import Tracker

COLORS = ("black", "brown", "white")
LIMITS = Limits(max_bytes=100_000, max_pixels=1_000_000)
SOURCE = {"data_revision": "0123abcd", "git_commit": "c0ffee", "overrides": ""}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Weights are large: what is on this shelf goes away with the last test."""
    path = tmp_path_factory.mktemp("registry")
    yield path
    shutil.rmtree(path)


def make_bundle(
    directory: Path,
    seed: int,
    tags: tuple[str, ...] = COLORS,
    detector: Detector | None = None,
) -> Path:
    """Write a small bundle with random weights."""
    model = random_model(len(tags), backbone_seed=seed, head_seed=seed, pooled=("layer4",))
    transform = Transform(size=64, framing="shoe" if detector else "whole", detector=detector)
    bundle = Bundle(
        group="color",
        tags=tags,
        arch="resnet18",
        pooled=model.pooled,
        transform=transform,
        thresholds=(0.5,) * len(tags),
        support=(3,) * len(tags),
        prefixes=prefix_digests(model, transform),
        pretrained=None,
        weights_sha256=save_weights(
            model, directory / WEIGHTS_FILE, None, detector.read() if detector else None
        ),
    )
    save_bundle(bundle, directory / BUNDLE_FILE)
    return directory


@pytest.fixture(scope="module")
def first(shelf: Path) -> Path:
    return make_bundle(shelf / "first", seed=1)


@pytest.fixture(scope="module")
def second(shelf: Path) -> Path:
    """Another bundle, with a detector whose own file is gone."""
    detector = Detector.at(write_detector(shelf / "red.tflite"))
    directory = make_bundle(shelf / "second", seed=2, detector=detector)
    detector.path.unlink()
    return directory


@pytest.fixture
def artifacts(shelf: Path) -> Iterator[Path]:
    yield shelf / "the artifacts"
    shutil.rmtree(shelf / "the artifacts", ignore_errors=True)


@pytest.fixture
def registry(uri: str, artifacts: Path) -> Registry:
    return Registry(uri, artifacts)


@pytest.fixture
def cache(shelf: Path) -> Iterator[Path]:
    yield shelf / "cache"
    shutil.rmtree(shelf / "cache", ignore_errors=True)


def register(registry: Registry, directory: Path, figures: Path | None = None) -> Version:
    return registry.register(
        directory, limits=LIMITS, tags=SOURCE, metrics={("macro_f1",): 0.7}, figures=figures
    )


def files_of(artifacts: Path) -> dict[str, Path]:
    """Return the files of the only registered model."""
    (model,) = (artifacts / "models").iterdir()
    root = model / "artifacts"
    return {str(p.relative_to(root)): p for p in root.rglob("*") if p.is_file()}


# --- registering ----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_version_says_which_bundle_it_holds_and_where_it_came_from(
    registry: Registry, first: Path
) -> None:
    version = register(registry, first)
    assert (version.group, version.name, version.number) == ("color", "shoetagger-color", "1")
    assert version.digest == load_bundle(first).digest
    assert SOURCE.items() <= version.tags.items()
    assert version.aliases == ()


@pytest.mark.slow
def test_the_address_of_a_page_shows_no_password(registry: Registry, first: Path) -> None:
    version = register(registry, first)
    assert registry.page_of(version, "comparison.html") is None
    registry._uri = "https://me:hunter@mlflow.example.org/"
    assert registry.page_of(version, "comparison.html") == (
        "https://mlflow.example.org/#/experiments/1/runs/"
        f"{version.run_id}/artifacts/versions/1/comparison.html?workflowType=machine_learning"
    )
    registry._pages = "https://me:hunter@people.example.org"
    page = registry.page_of(version, "comparison.html")
    assert page is not None
    assert page.startswith("https://people.example.org/#/experiments/1/")


@pytest.mark.slow
def test_a_version_belongs_to_the_run_that_trained_its_weights(
    registry: Registry, uri: str, artifacts: Path, first: Path, tmp_path: Path
) -> None:
    with Tracker(uri, tmp_path / "outbox", artifacts).start("train", tags={}, params={}) as run:
        run.log_metrics({"macro_f1": 0.7}, step=4)
        run.set_tags({"weights_sha256": load_bundle(first).weights_sha256})
    version = register(registry, first)
    assert version.run_id == run.run_id
    client = MlflowClient(uri)
    assert len(client.get_metric_history(str(version.run_id), "macro_f1")) == 1
    assert len(client.search_runs([client.get_run(str(run.run_id)).info.experiment_id])) == 1
    number = client.get_model_version(version.name, version.number)
    model = client.get_logged_model(str(number.source).removeprefix("models:/"))
    assert model.source_run_id == run.run_id
    assert [(m.key, m.value) for m in model.metrics or []] == [("macro_f1", 0.7)]


@pytest.mark.slow
def test_weights_that_mlflow_never_heard_of_get_a_run_with_figures(
    registry: Registry, uri: str, artifacts: Path, first: Path, tmp_path: Path
) -> None:
    """As when DVC restored the result of a training from its cache."""
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "loss.png").write_bytes(b"\x89PNG")
    version = register(registry, first, tmp_path / "plots")
    run = MlflowClient(uri).get_run(str(version.run_id))
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "register color"
    assert run.data.metrics == {"macro_f1": 0.7}
    assert SOURCE.items() <= run.data.tags.items()
    assert (artifacts / run.info.run_id / "artifacts" / "plots" / "loss.png").is_file()


@pytest.mark.slow
def test_a_bundle_is_registered_once(
    registry: Registry, first: Path, second: Path, artifacts: Path
) -> None:
    one = register(registry, first)
    other = register(registry, second)
    assert register(registry, first) == one
    assert [v.number for v in registry.versions("color")] == [one.number, other.number]
    assert registry.version_with("color", other.digest) == other
    assert registry.version_with("color", "0" * 64) is None
    assert registry.version_with("style", other.digest) is None
    assert len(list((artifacts / "models").iterdir())) == 2


@pytest.mark.slow
def test_a_bundle_whose_weights_are_others_is_refused(
    registry: Registry, first: Path, second: Path, tmp_path: Path
) -> None:
    os.link(first / WEIGHTS_FILE, tmp_path / WEIGHTS_FILE)
    shutil.copy(second / BUNDLE_FILE, tmp_path / BUNDLE_FILE)
    with pytest.raises(RegistryError, match="not the file that the bundle beside it describes"):
        register(registry, tmp_path)
    assert registry.versions("color") == []


def test_a_folder_without_a_bundle_is_refused(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no bundle\.json"):
        register(registry, tmp_path)


@pytest.mark.slow
def test_a_tag_that_is_a_column_of_the_answer_is_refused(registry: Registry, shelf: Path) -> None:
    odd = make_bundle(shelf / "odd", seed=3, tags=("black", "rejected"))
    with pytest.raises(RegistryError, match="rename it"):
        register(registry, odd)


ODD = ("steel toe (S3)", "größe 4½", "a/../b", ".", "'quoted' \"twice\"", "👟 & 50%", "=1+1")


@pytest.mark.slow
def test_tags_of_any_words_can_be_registered_and_are_shown(
    registry: Registry, uri: str, shelf: Path
) -> None:
    odd = make_bundle(shelf / "odd words", seed=4, tags=ODD)
    metrics = {("validation", "f1", tag): number / 10 for number, tag in enumerate(ODD)}
    version = registry.register(odd, limits=LIMITS, tags=SOURCE, metrics=metrics)
    assert version.tags["tags"] == ", ".join(ODD)
    shown = MlflowClient(uri).get_run(str(version.run_id)).data.metrics
    assert len(shown) == len(ODD)
    assert shown["validation/f1/steel toe _x0028_S3_x0029_"] == 0.0
    assert shown["validation/f1/größe 4½"] == 0.1


@pytest.mark.slow
@pytest.mark.parametrize("at", ["metrics", "version"])
def test_what_mlflow_refuses_is_told_and_leaves_nothing_behind(
    registry: Registry, uri: str, artifacts: Path, first: Path, at: str
) -> None:
    metrics = {("",): 0.7} if at == "metrics" else {}
    overrides = {"overrides": "x" * 100_001} if at == "version" else {}
    with pytest.raises(MLflowRefused, match=r"refuses a request: .*(''|\"\"|100000)") as caught:
        registry.register(first, limits=LIMITS, tags=SOURCE | overrides, metrics=metrics)
    assert not isinstance(caught.value, TransientError)
    assert [path for path in (artifacts / "models").rglob("*") if path.is_file()] == []
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("shoetagger")
    assert experiment is not None
    assert client.search_logged_models([experiment.experiment_id]) == []
    assert register(registry, first).number == "1"


@pytest.mark.slow
def test_what_a_killed_registration_left_is_removed_by_the_next(
    registry: Registry, artifacts: Path, first: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(BaseException):
        """The process is gone: nothing is tidied up."""

    def die(*_: object) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(registration, "_link", die)
        patch.setattr(registration, "_remove", lambda *_: None)
        patch.setattr(MlflowClient, "finalize_logged_model", lambda *_: None)
        with pytest.raises(KilledError):
            register(registry, first)
    assert len(list((artifacts / "models").glob("*/artifacts"))) == 1
    monkeypatch.setattr(registration, "ABANDONED_AFTER", -1.0)
    register(registry, first)
    assert len(list((artifacts / "models").glob("*/artifacts"))) == 1


def test_a_registry_that_is_not_there_is_named(artifacts: Path, first: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{taken.getsockname()[1]}"
        registry = Registry(uri, artifacts)
        with pytest.raises(MLflowUnavailable, match=uri):
            register(registry, first)
        with pytest.raises(MLflowUnavailable, match="Connection refused"):
            registry.by_alias("color", "champion")


@pytest.mark.slow
def test_processes_that_register_a_bundle_at_once_make_one_version(
    registry: Registry, uri: str, artifacts: Path, first: Path
) -> None:
    code = """
        import sys
        from pathlib import Path
        from shoetagger.images.decode import Limits
        from shoetagger.tracking.registry import Registry
        uri, artifacts, directory = sys.argv[1:]
        print("ready", flush=True)
        sys.stdin.readline()
        registry = Registry(uri, Path(artifacts))
        version = registry.register(
            Path(directory), limits=Limits(10**5, 10**6), tags={}, metrics={}
        )
        print(version.number)
    """
    crowd = [
        subprocess.Popen(
            fork_server.python("-c", textwrap.dedent(code), uri, artifacts, first),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in crowd:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in crowd:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.communicate()[0] for process in crowd] == ["1\n", "1\n"]
    assert len(registry.versions("color")) == 1


@pytest.mark.slow
def test_of_two_machines_that_register_a_bundle_at_once_the_first_wins(
    registry: Registry, first: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock file holds on one machine only: the other has looked before it was there."""
    one = register(registry, first)
    look = _first_with
    looks = iter([lambda *_: None])
    monkeypatch.setattr(registry_module, "_first_with", lambda *of: next(looks, look)(*of))
    assert register(registry, first) == one
    assert [v.number for v in registry.versions("color")] == [one.number]


# --- aliases --------------------------------------------------------------------------------


def test_a_group_that_was_never_registered_has_no_versions(registry: Registry) -> None:
    assert registry.versions("color") == []
    assert registry.by_alias("color", "champion") is None
    assert registry.by_number("color", "1") is None
    registry.drop_alias("color", "champion")


@pytest.mark.slow
def test_an_alias_moves_and_goes(registry: Registry, first: Path, second: Path) -> None:
    one, other = register(registry, first), register(registry, second)
    registry.set_alias("color", "champion", one.number)
    registry.set_alias("color", "challenger", other.number)
    found = registry.by_alias("color", "champion")
    assert found is not None
    assert (found.number, found.digest, found.aliases) == ("1", one.digest, ("champion",))
    registry.set_alias("color", "champion", other.number)
    found = registry.by_alias("color", "champion")
    assert found is not None
    assert (found.digest, found.aliases) == (other.digest, ("challenger", "champion"))
    registry.drop_alias("color", "challenger")
    registry.drop_alias("color", "challenger")
    assert [v.aliases for v in registry.versions("color")] == [(), ("champion",)]
    assert registry.by_number("color", "7") is None


def test_a_version_that_somebody_else_registered_is_not_taken_for_ours(
    registry: Registry, uri: str
) -> None:
    client = MlflowClient(uri)
    client.create_registered_model("shoetagger-color")
    client.create_model_version("shoetagger-color", source="file:///nowhere")
    client.set_registered_model_alias("shoetagger-color", "champion", "1")
    assert registry.versions("color") == []
    with pytest.raises(RegistryError, match="holds no bundle of this project"):
        registry.by_alias("color", "champion")


@pytest.mark.slow
def test_a_version_copied_from_another_groups_model_shows_in_its_bundle(
    registry: Registry, uri: str, first: Path, cache: Path, tmp_path: Path
) -> None:
    register(registry, first)
    MlflowClient(uri).copy_model_version("models:/shoetagger-color/1", "shoetagger-style")
    registry.set_alias("style", "champion", "1")
    with Store(f"sqlite:///{tmp_path / 'store.db'}") as store:
        store.migrate()
        (fault,) = reconcile(store, registry, ["style"], bundles=cache).values()
        assert store.ledger.live() == {}
    assert "version 1 of shoetagger-style, whose bundle is one of group color" in fault


# --- fetching -------------------------------------------------------------------------------


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.slow
def test_a_fetched_bundle_is_the_one_registered(
    registry: Registry, first: Path, cache: Path
) -> None:
    version = register(registry, first)
    fetched = registry.fetch(version, cache)
    assert fetched == cache / version.digest
    assert contents(fetched) == contents(first)
    assert [path.name for path in cache.iterdir()] == [version.digest]


@pytest.mark.slow
def test_a_cached_bundle_needs_no_registry(
    registry: Registry, first: Path, cache: Path, artifacts: Path
) -> None:
    version = register(registry, first)
    fetched = registry.fetch(version, cache)
    nobody = Registry("http://127.0.0.1:1", artifacts)
    assert nobody.fetch(version, cache) == fetched


def damage(path: Path) -> None:
    """Change one byte, as a disk does: the size and the format stay."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.slow
def test_a_damaged_cache_is_filled_again(registry: Registry, first: Path, cache: Path) -> None:
    version = register(registry, first)
    fetched = registry.fetch(version, cache)
    damage(fetched / WEIGHTS_FILE)
    assert contents(registry.fetch(version, cache)) == contents(first)


def other_threshold(path: Path) -> None:
    path.write_text(path.read_text().replace("0.5", "0.4", 1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "change"), [(WEIGHTS_FILE, damage), (BUNDLE_FILE, other_threshold)]
)
def test_a_bundle_that_is_not_what_its_version_says_is_refused(
    registry: Registry,
    first: Path,
    cache: Path,
    artifacts: Path,
    file: str,
    change: Callable[[Path], None],
) -> None:
    version = register(registry, first)
    change(files_of(artifacts)[f"artifacts/bundle/{file}"])
    with pytest.raises(RegistryError, match=r"version 1 of shoetagger-color .* register"):
        registry.fetch(version, cache)
    assert list(cache.iterdir()) == []


# --- what is in a version -------------------------------------------------------------------


@pytest.mark.slow
def test_a_version_holds_no_pickle_and_no_path_of_this_machine(
    registry: Registry, first: Path, artifacts: Path
) -> None:
    register(registry, first)
    files = files_of(artifacts)
    assert "served_model.py" in files
    assert not [name for name in files if name.endswith((".pkl", ".pickle", ".pt", ".pth"))]
    repo = str(Path(__file__).parents[2])
    texts = {name: path.read_bytes() for name, path in files.items() if path != WEIGHTS_FILE}
    assert not [name for name, text in texts.items() if repo.encode() in text]


def test_a_version_takes_along_just_the_core_that_it_needs() -> None:
    assert {name.partition("/")[0] for name in served_sources()} == {
        "__init__.py", "atomic.py", "errors.py", "images", "inference", "network",
    }  # fmt: skip


def test_what_a_version_takes_along_imports_nothing_else_of_this_package() -> None:
    taken = set(served_sources())
    for module in files_run_by("shoetagger.inference.engine", "shoetagger.images.views", exempt=()):
        assert module.removeprefix("src/shoetagger/") in taken


def test_a_version_names_what_it_needs_from_the_index(first: Path, second: Path) -> None:
    def pins(bundle: Bundle) -> dict[str, str]:
        return dict(line.split("==") for line in requirements(bundle))

    bundle = load_bundle(first)
    pinned = pins(bundle)
    assert set(pinned) == {
        "mlflow",
        "numpy",
        "pandas",
        "pillow",
        "pillow-heif",
        "safetensors",
        "torch",
        "torchvision",
    }
    assert pinned["torch"] == torch.__version__.partition("+")[0]
    of_timm = pins(dataclasses.replace(bundle, arch="timm:convnext_atto"))
    assert of_timm == pinned | {"timm": importlib.metadata.version("timm")}
    with_detector = pins(load_bundle(second))
    assert set(with_detector) == {*pinned, "ai-edge-litert"}


# --- for who has never seen this repo -------------------------------------------------------


def png(color: tuple[int, int, int], size: tuple[int, int] = (90, 60)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, "PNG")
    return buffer.getvalue()


def red_on_noise() -> bytes:
    """A picture that a bundle with a detector sees otherwise than one without."""
    image = Image.effect_noise((90, 60), 90).convert("RGB")
    image.paste((180, 40, 40), (50, 20, 70, 35))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


GOOD = (png((200, 30, 40)), red_on_noise(), png((250, 250, 250), (700, 20)))
PICTURES = (GOOD[0], b"<html>no picture</html>", GOOD[1], b"", GOOD[0][:80], GOOD[2])


@pytest.fixture(scope="module")
def stranger(shelf: Path, first: Path, second: Path) -> Iterator[dict[str, str]]:
    """The environment of somebody without this repo, whose registry has two versions.

    The second version has other code: its tags are in capitals.
    """
    home = shelf / "home of a stranger"
    home.mkdir()
    uri = f"sqlite:///{home / 'mlflow.db'}"
    registry = Registry(uri, home / "artifacts")
    register(registry, first)
    sources = served_sources()
    sources["inference/decision.py"] += (
        b"\n_tags_of = tags_of\n\ndef tags_of(predicted, tags):"
        b"\n    return [tuple(t.upper() for t in row) for row in _tags_of(predicted, tags)]\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packaging, "served_sources", lambda: sources)
        register(registry, second)
    registry.set_alias("color", "champion", "1")
    # Without this repo: its package cannot be found, in whatever process is started.
    (home / "sitecustomize.py").write_text(
        textwrap.dedent("""
            import sys

            class Hidden:
                def find_spec(name, path=None, target=None):
                    if name.partition(".")[0] == "shoetagger":
                        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

            sys.meta_path.insert(0, Hidden)
        """)
    )
    yield {
        # `mlflow models serve` starts uvicorn by name.
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(home),
        "PYTHONPATH": str(home),
        "MLFLOW_TRACKING_URI": uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }
    shutil.rmtree(home)


def as_stranger(stranger: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=stranger["HOME"],
        env=stranger,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


LOAD_BOTH = """
    import base64, json, pathlib, sys
    import mlflow, pandas
    try:
        import shoetagger
    except ImportError:
        pass
    else:
        raise SystemExit("this repo is on the path")
    pictures = [base64.b64decode(line) for line in sys.argv[1].split(",")]
    frame = pandas.DataFrame({"image": pictures}, index=range(10, 10 + len(pictures)))
    champion = mlflow.pyfunc.load_model("models:/shoetagger-color@champion")
    other = mlflow.pyfunc.load_model("models:/shoetagger-color/2")
    answers = [model.predict(frame) for model in (champion, other, champion)]
    packages = {name for name in sys.modules if name.startswith("shoetagger")}
    print(json.dumps({
        "rows": [answer.to_dict("records") for answer in answers],
        "columns": list(answers[0].columns),
        "index": list(answers[0].index),
        "packages": sorted(name for name in packages if "." not in name),
        "written": [str(p) for p in pathlib.Path("artifacts").rglob("code/**/*.pyc")],
    }, allow_nan=False))
"""


@pytest.fixture(scope="module")
def answers(stranger: dict[str, str]) -> dict[str, Any]:
    encoded = ",".join(base64.b64encode(picture).decode() for picture in PICTURES)
    printed = as_stranger(stranger, "-c", textwrap.dedent(LOAD_BOTH), encoded)
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return found


def engine_scores(directory: Path) -> np.ndarray:
    """Return what the night would score for the good pictures, (3, tags)."""
    engine = Engine([directory], "cpu")
    (transform,) = engine.transforms
    views = [
        tagging_view(open_image(data, LIMITS, longest=transform.size), transform) for data in GOOD
    ]
    (answer,) = engine.predict({transform: np.stack(views)}).values()
    return np.array([row.scores for row in answer])


def check_rows(rows: list[dict[str, Any]], directory: Path) -> None:
    rejected = [row["rejected"] is not None for row in rows]
    assert rejected == [False, True, False, True, True, False]
    good = [row for row in rows if row["rejected"] is None]
    scores = np.array([[row[tag.lower()] for tag in COLORS] for row in good])
    np.testing.assert_allclose(scores, engine_scores(directory), atol=2e-4)
    assert all(row["tags"] for row in good)
    for row in rows:
        if row["rejected"] is not None:
            assert row["tags"] == []
            assert [row[tag] for tag in COLORS] == [None] * 3


@pytest.mark.slow
def test_a_stranger_gets_the_scores_of_the_engine(answers: dict[str, Any], first: Path) -> None:
    check_rows(answers["rows"][0], first)
    assert answers["columns"] == ["tags", "rejected", *COLORS]
    assert answers["index"] == list(range(10, 10 + len(PICTURES)))


@pytest.mark.slow
def test_a_bad_picture_says_why_and_does_not_stop_the_others(answers: dict[str, Any]) -> None:
    reasons = [row["rejected"] for row in answers["rows"][0]]
    assert "not a picture" in reasons[1]
    assert "empty" in reasons[3]
    assert "truncated" in reasons[4]


@pytest.mark.slow
def test_versions_with_different_code_live_side_by_side(
    answers: dict[str, Any], first: Path, second: Path
) -> None:
    champion, other, champion_again = answers["rows"]
    check_rows(champion, first)
    check_rows(other, second)
    assert champion_again == champion
    assert all(tag in COLORS for row in champion for tag in row["tags"])
    assert all(tag.lower() in COLORS and tag.isupper() for row in other for tag in row["tags"])
    assert len(answers["packages"]) == 2


@pytest.mark.slow
def test_loading_a_version_leaves_nothing_beside_its_core(answers: dict[str, Any]) -> None:
    assert answers["written"] == []


def request_body() -> bytes:
    encoded = [[base64.b64encode(picture).decode()] for picture in PICTURES]
    return json.dumps({"dataframe_split": {"columns": ["image"], "data": encoded}}).encode()


def strictly(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


@pytest.mark.slow
def test_mlflow_models_predict_works_for_a_stranger(stranger: dict[str, str], first: Path) -> None:
    home = Path(stranger["HOME"])
    (home / "in.json").write_bytes(request_body())
    as_stranger(
        *(stranger, "-m", "mlflow", "models", "predict", "--env-manager", "local"),
        *("-m", "models:/shoetagger-color@champion", "-t", "json"),
        *("-i", "in.json", "-o", "out.json"),
    )
    answer = json.loads((home / "out.json").read_text(), parse_constant=strictly)
    check_rows(answer["predictions"], first)


@pytest.mark.slow
def test_mlflow_models_serve_works_for_a_stranger(stranger: dict[str, str], first: Path) -> None:
    port = free_port()
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"),
            *("-m", "models:/shoetagger-color@champion", "-h", "127.0.0.1", "-p", str(port)),
            *("--workers", "1"),
        ],
        cwd=stranger["HOME"],
        env=stranger,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/ping", server)
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations",
            data=request_body(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            answer = json.loads(response.read(), parse_constant=strictly)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)
    check_rows(answer["predictions"], first)


def wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 180
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            assert server.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server did not come up"
            time.sleep(0.5)
