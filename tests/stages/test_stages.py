"""The stages of dvc.yaml declare what they run, and DVC runs again only what changed."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers.detector import write_detector
from helpers.fork_server import use_for_stages
from helpers.imported import files_run_by, lies_in
from helpers.sample import copy_sample, keep_columns
from PIL import Image
from safetensors.torch import save_file

from shoetagger.config.params import load
from shoetagger.images.detector import Detector, DetectorError
from shoetagger.images.views import Transform, tagging_view
from shoetagger.inference.engine import Engine
from shoetagger.ingest.batches import decode_pool
from shoetagger.ingest.folder import locator_of
from shoetagger.learning.dataset.split import SplitError
from shoetagger.network.libraries import library
from shoetagger.network.weights import load_trained
from shoetagger.stages import split
from shoetagger.tracking.outbox import Outbox

ROOT = Path(__file__).parents[2]
STAGES: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_declares_the_code_that_it_runs_and_no_other(stage: str) -> None:
    spec = STAGES[stage].get("do", STAGES[stage])
    declared = [dep for dep in spec["deps"] if dep.startswith("src/")]
    run = files_run_by(f"shoetagger.stages.{stage}")
    assert not [file for file in run if not any(lies_in(file, dep) for dep in declared)]
    assert not [dep for dep in declared if not any(lies_in(file, dep) for file in run)]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_runs_the_module_of_its_name(stage: str) -> None:
    spec = STAGES[stage].get("do", STAGES[stage])
    assert f"sh src/stage.sh {stage} " in spec["cmd"] + " "


def test_every_parameter_a_stage_depends_on_exists() -> None:
    document = yaml.safe_load((ROOT / "params.yaml").read_text())
    for spec in STAGES.values():
        for key in spec.get("do", spec)["params"]:
            for group in document["groups"] if "${key}" in key else [""]:
                value = document
                for part in key.replace("${key}", group).split("."):
                    value = value[part]


def test_what_dvc_plots_show_writes_is_ignored_by_git() -> None:
    command = ["git", "check-ignore", "--quiet", "dvc_plots/index.html"]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0


# Without the parent run of the training.
RUNS_OF_TRAIN = "attributes.run_name LIKE 'train %'"

# --- with real DVC ----------------------------------------------------------------------------

QUICK = {
    "split": {"folds": 2, "repeats": 2, "validation": 0.3},
    "images": {"size": 32},
    "train": {"weights": "none", "freeze": "none", "epochs": 1},
    "evaluate": {"bootstrap": 20, "min_positives": 1},
}


def run(folder: Path, *command: str) -> str:
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(folder / "src"),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        command, cwd=folder, env=environment, text=True, capture_output=True, timeout=900
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def repro(project: Path) -> set[str]:
    """Run `dvc repro` and return the stages that ran."""
    out = run(project, "dvc", "repro")
    return {line.split("'")[1] for line in out.splitlines() if line.startswith("Running stage")}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of its own: two small groups, forty drawn shoes, a recipe of seconds."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    use_for_stages(folder)
    for name in ("dvc.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, folder)
    document = yaml.safe_load((ROOT / "params.yaml").read_text())
    document["groups"] = {
        "color": {"tags": ["black", "white"]},
        "style": {"tags": ["boot", "heel"]},
    }
    for section, values in QUICK.items():
        document[section] |= values
    (folder / "params.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    copy_sample(folder / "data", count=40)
    keep_columns(folder / "data" / "labels.csv", ["black", "white", "boot", "heel"])
    run(folder, "git", "init", "-q")
    run(folder, "dvc", "init", "-q")
    run(folder, "dvc", "add", "-q", "data")
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "A small project")
    return folder


@pytest.mark.slow
def test_repro_runs_once_and_then_only_what_changed(project: Path) -> None:
    everything = {"split", "features", "summary"} | {
        f"{stage}@{group}"
        for stage in ("train", "crossval", "evaluate")
        for group in ("color", "style")
    }
    assert repro(project) == everything
    assert repro(project) == set()
    run(project, sys.executable, "-m", "compileall", "-q", "src")
    assert "up to date" in run(project, "dvc", "status")

    # Code that makes no model: a message about a sheet, a nightly key, the use of MLflow.
    package = project / "src" / "shoetagger"
    for module in ("config/operations.py", "errors.py", "tracking/run.py", "store/files.py"):
        with (package / module).open("a") as file:
            file.write("# another message\n")
    assert repro(project) == set()
    with (package / "learning" / "dataset" / "labels.py").open("a") as file:
        file.write("# another message\n")
    assert repro(project) == {"split"}

    metrics = json.loads((project / "metrics" / "color.json").read_text())
    assert metrics["validation"]["pictures"] > 0
    assert metrics["crossval"]["pictures"] > 0
    together = json.loads((project / "metrics" / "overall.json").read_text())["crossval"]
    assert together["pictures"] == metrics["crossval"]["pictures"]
    assert set(together["tags"]) == {"black", "white", "boot", "heel"}
    bundle = json.loads((project / "models" / "color" / "bundle.json").read_text())
    assert bundle["tags"] == ["black", "white"]
    style = (project / "models" / "style" / "bundle.json").read_bytes()
    table = run(project, "dvc", "metrics", "show", "--md").splitlines()
    assert {line.split()[1] for line in table if "metrics/" in line} == {
        f"metrics/{name}.summary.json" for name in ("color", "overall", "style")
    }
    assert max(map(len, table)) < 200  # a tag's figures are in metrics/<group>.json
    run(project, "dvc", "plots", "show", "--out", str(project / "shown"))
    assert (project / "shown" / "index.html").is_file()

    # One cell of a colour: colour alone is learned again.
    sheet = project / "data" / "labels.csv"
    header, first, *rest = sheet.read_text(encoding="utf-8").splitlines()
    name, black, *others = next(iter(csv.reader([first])))
    changed = ",".join([f'"{name}"', "" if black == "1" else "1", *others])
    sheet.write_text("\n".join([header, changed, *rest]) + "\n", encoding="utf-8")
    run(project, "dvc", "add", "-q", "data")
    assert repro(project) == {
        "split", "train@color", "crossval@color", "evaluate@color", "summary",
    }  # fmt: skip

    # A column that is no tag: it is kept beside them, and nothing is learned again.
    header, *rows = sheet.read_text(encoding="utf-8").splitlines()
    priced = [f"{header},price", *(f"{row},{number}.90" for number, row in enumerate(rows))]
    sheet.write_text("\n".join(priced) + "\n", encoding="utf-8")
    run(project, "dvc", "add", "-q", "data")
    assert repro(project) == {"split"}

    # A title: the plots are drawn again, and nothing is learned.
    params = project / "params.yaml"
    document = yaml.safe_load(params.read_text())
    document["titles"] = {"boot": "Boots"}
    params.write_text(yaml.safe_dump(document, sort_keys=False))
    assert repro(project) == {"evaluate@color", "evaluate@style"}
    assert (project / "models" / "style" / "bundle.json").read_bytes() == style

    # One parameter of one group: that group alone.
    document["groups"]["color"]["train"] = {"epochs": 2}
    params.write_text(yaml.safe_dump(document, sort_keys=False))
    assert repro(project) == {
        "split", "train@color", "crossval@color", "evaluate@color", "summary",
    }  # fmt: skip
    assert (project / "models" / "style" / "bundle.json").read_bytes() == style


@pytest.mark.slow
def test_a_stage_tells_a_user_in_one_line_what_is_wrong(project: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "shoetagger.stages", "split", str(tmp_path / "none"), "out"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


@pytest.fixture
def mlflow(tmp_path: Path, empty_mlflow: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An MLflow of the test's own, and its folder as the working directory."""
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{shutil.copy(empty_mlflow, tmp_path / 'mlflow.db')}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


def train_in_process(
    project: Path,
    group: str,
    tags: list[str],
    places: slice,
    *,
    shown: dict[str, object] | None = None,
    **recipe: object,
) -> None:
    """Run all stages in the working directory, for one group, on some of the project's pictures.

    `shown` are keys of `images`, and `recipe` of `train`, that differ from the project's.
    """
    from shoetagger.stages import crossval, evaluate, features, split, summary, train

    document = yaml.safe_load((project / "params.yaml").read_text())
    document |= {"groups": {group: {"tags": tags}}, "titles": {}}
    document["train"] |= recipe
    document["images"] |= shown or {}
    Path("params.yaml").write_text(yaml.safe_dump(document))
    images = Path("data/images")
    images.mkdir(parents=True)
    names = sorted(path.name for path in (project / "data" / "images").iterdir())[places]
    for name in names:
        with Image.open(project / "data" / "images" / name) as picture:
            picture.resize((30, 30)).save(images / name)
    with Path("data/labels.csv").open("w", newline="", encoding="utf-8") as sheet:
        rows = csv.writer(sheet)
        rows.writerow(["image_name", *tags])
        for i, name in enumerate(names):
            rows.writerow([name, *(int((i + j) % 3 == 0) for j in range(len(tags)))])

    split.main(Path("data"), Path("split"))
    listing, states, table = Path("split/images.csv"), Path("features"), Path(f"split/{group}.csv")
    features.main(listing, images, states)
    weights, scores = Path(f"models/{group}/weights.safetensors"), Path(f"crossval/{group}.csv")
    train.main(group, table, images, states, weights, Path("history.csv"))
    crossval.main(group, table, images, states, scores)
    bundle, metrics = Path(f"models/{group}/bundle.json"), Path(f"metrics/{group}.json")
    brief = Path(f"metrics/{group}.summary.json")
    predictions, drawn = Path(f"predictions/{group}.csv"), Path("plots")
    evaluate.main(
        group, table, images, states, weights, scores, bundle, predictions, metrics,
        brief, *(Path(f"{plot}.csv") for plot in ("tags", "confusion", "curve", "reliability")),
        drawn,
    )  # fmt: skip
    summary.main(Path("predictions"), Path("metrics/overall.json"), Path("overall.summary.json"))


@pytest.mark.slow
@pytest.mark.usefixtures("mlflow")
def test_a_group_of_one_tag_and_pictures_of_30_pixels_train(project: Path) -> None:
    # Of these twelve, one that is not ticked is held out.
    train_in_process(project, "height", ["boot"], slice(24, 36))
    assert json.loads(Path("models/height/bundle.json").read_text())["tags"] == ["boot"]
    drawn = {path.name for path in Path("plots").iterdir()}
    assert drawn >= {"reliability.png", "worst_mistakes.png"}
    together = json.loads(Path("metrics/overall.json").read_text())
    assert together["crossval"]["pictures"] + together["validation"]["pictures"] == 12


@pytest.mark.slow
@pytest.mark.usefixtures("mlflow")
def test_a_file_of_weights_trains_a_backbone_and_the_stages_say_what_its_licence_forbids(
    project: Path, capsys: pytest.CaptureFixture
) -> None:
    file = Path("data/weights/own.safetensors")
    file.parent.mkdir(parents=True)
    arch = "timm:vit_tiny_patch16_224"
    network = library(arch)[0].create("vit_tiny_patch16_224")
    save_file(network.state_dict(), file, {"source": "our own", "license": "cc-by-nc-4.0"})
    train_in_process(
        project, "height", ["boot"], slice(24, 36), arch=arch, weights=str(file),
        freeze="layer3", pooled=["histogram", "layer3_contrast", "layer4_token"],
    )  # fmt: skip
    assert "height: the licence of the weights our own (cc-by-nc-4.0) forbids" in (
        capsys.readouterr().out
    )
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert Path("split/weights.txt").read_text() == f"{digest}\n"
    assert np.load("features/map.npy", mmap_mode="r").shape[2:] == (1 + 2 * 2, 192)
    (bundle,) = Engine([Path("models/height")], "cpu").bundles
    assert bundle.origin is not None
    assert (bundle.origin.source, bundle.origin.commercial_use) == ("our own", "forbidden")
    assert bundle.transform.mean == (0.5, 0.5, 0.5), "as this backbone needs it"
    frozen = load_trained(
        arch, 1, bundle.pooled, Path("models/height/weights.safetensors"), size=32
    )
    assert torch.equal(frozen.layer3[0].mlp.fc1.weight, network.blocks[6].mlp.fc1.weight)
    assert not torch.equal(frozen.layer4[0].mlp.fc1.weight, network.blocks[9].mlp.fc1.weight)
    file.unlink()
    with pytest.raises(SplitError, match=r"train\.weights: data/weights/own\.safetensors cannot"):
        split.main(Path("data"), Path("split"))


@pytest.mark.slow
@pytest.mark.usefixtures("mlflow")
def test_a_shoe_detector_goes_wherever_the_bundle_goes(project: Path) -> None:
    file = write_detector(Path("data/shoe_detector.tflite"))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    shown: dict[str, object] = {"framing": "shoe", "detector": str(file)}
    train_in_process(project, "height", ["boot"], slice(24, 36), shown=shown)
    assert Path("split/weights.txt").read_text() == f"{digest}\n"

    noise = np.random.default_rng(0).integers(60, 200, (90, 120, 3), dtype=np.uint8)
    noise[30:50, 60:90] = (180, 40, 40)
    picture = Image.fromarray(noise)
    picture.save("uneven.png")
    transform = Transform(size=32, framing="shoe", detector=Detector.at(file))
    seen = tagging_view(picture, transform)

    # Elsewhere, where there is nothing but the bundle: in decoding processes, as at night.
    shutil.move("models/height", "elsewhere")
    shutil.rmtree("data")
    (bundle,) = Engine([Path("elsewhere")], "cpu").bundles
    assert bundle.transform == transform
    params = load(Path("params.yaml"))
    with decode_pool(params, (bundle.transform,), Path.cwd(), settle_seconds=0.0) as pool:
        (decoded,) = pool.run([locator_of("uneven.png")])
    assert decoded.views is not None, decoded
    assert np.array_equal(decoded.views[0], seen)
    whole = tagging_view(picture, dataclasses.replace(transform, detector=None))
    assert not np.array_equal(seen, whole)


def test_where_no_files_of_weights_are_named_split_says_so_as_dvc_warns_of_empty_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    copy_sample(Path("data"), 30)
    document = yaml.safe_load((ROOT / "params.yaml").read_text())
    document["groups"] = {"color": {"tags": ["black"]}}
    Path("params.yaml").write_text(yaml.safe_dump(document))
    split.main(Path("data"), Path("split"))
    assert Path("split/weights.txt").read_text() == "none\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, r"images\.detector: data/shoe_detector\.tflite cannot be read"),
        (b"<html>", "shoe_detector.tflite is no TFLite file that can be run"),
    ],
)
def test_a_shoe_detector_is_tried_out_before_anything_is_trained(
    content: bytes | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    copy_sample(Path("data"), 30)
    document = yaml.safe_load((ROOT / "params.yaml").read_text())
    document["images"]["detector"] = "data/shoe_detector.tflite"
    Path("params.yaml").write_text(yaml.safe_dump(document))
    if content is not None:
        Path("data/shoe_detector.tflite").write_bytes(content)
    with pytest.raises(DetectorError, match=said):
        split.main(Path("data"), Path("split"))
    assert not Path("split").exists()


ODD = [
    "steel toe (S3)", "größe 4½", "a/../b", ".", "'quoted' \"twice\"", "👟 & $50$%", "=1+1",
    "true_.", "x" * 100,
]  # fmt: skip


@pytest.mark.slow
def test_tags_of_any_words_are_learned_measured_and_registered(
    project: Path, tmp_path: Path, mlflow: str
) -> None:
    from mlflow import MlflowClient

    from shoetagger.images.decode import Limits
    from shoetagger.learning.dataset.tables import read_predictions, read_scores
    from shoetagger.learning.evaluation.documents import flat_metrics
    from shoetagger.tracking.registry import Registry

    train_in_process(project, "größe", ODD, slice(None))
    metrics = json.loads(Path("metrics/größe.json").read_text())
    assert list(metrics["validation"]["tags"]) == ODD
    assert metrics["crossval"]["repeats"] == 2
    together = json.loads(Path("metrics/overall.json").read_text())["crossval"]
    assert together["macro_f1"] == metrics["crossval"]["macro_f1"], "of the only group"
    scored = read_scores(Path("crossval/größe.csv"))
    assert set(scored["repeat"]) == {0, 1}
    predicted = read_predictions(Path("predictions/größe.csv")).query("part == 'crossval'")
    for tag in ODD:
        assert list(predicted[f"score {tag}"]) == list(scored[tag]), tag
    registry = Registry(mlflow, Path(os.environ["SHOETAGGER_HOME"], "mlflow", "artifacts"))
    flat = flat_metrics(metrics)
    version = registry.register(
        Path("models/größe"), limits=Limits(10**6, 10**6), tags={}, metrics=flat
    )
    assert (version.name, version.group) == ("shoetagger-größe", "größe")
    assert registry.version_with("größe", version.digest) == version
    run = MlflowClient(mlflow).get_run(str(version.run_id))
    assert run.info.run_name == "train größe"
    assert len(run.data.metrics) >= len(flat)
    assert "validation/support/steel toe _x0028_S3_x0029_" in run.data.metrics
    fetched = registry.fetch(version, tmp_path / "cache")
    assert json.loads((fetched / "bundle.json").read_text())["tags"] == ODD


@pytest.fixture
def workspace(project: Path, tmp_path: Path) -> Path:
    """A folder in which a group can be trained, for longer than anybody waits."""
    folder = tmp_path / "workspace"
    folder.mkdir()
    (folder / "data").symlink_to(project / "data")
    document = yaml.safe_load((project / "params.yaml").read_text())
    document["train"]["epochs"] = 100_000
    (folder / "params.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    (folder / "dvc.yaml").write_text("stages: {}\n")
    (folder / "src").symlink_to(project / "src")
    run(folder, "sh", "src/stage.sh", "split", "data", "split")
    run(folder, "sh", "src/stage.sh", "features", "split/images.csv", "data/images", "features")
    return folder


TRAIN = [
    sys.executable, "-m", "shoetagger.stages", "train", "color",
    "--split", "split/color.csv", "--images", "data/images", "--features", "features",
    "--weights", "models/color/weights.safetensors", "--history", "history.csv",
]  # fmt: skip


def places(workspace: Path, home: Path) -> dict[str, str]:
    return os.environ | {
        "PYTHONPATH": str(workspace / "src"),
        "SHOETAGGER_HOME": str(home),
        "SHOETAGGER_REPO": str(workspace),
        "OMP_NUM_THREADS": "1",
    }


@pytest.mark.slow
def test_ctrl_c_ends_training_as_killed_and_leaves_no_half_written_file(
    workspace: Path, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    home = tmp_path / "state"
    with subprocess.Popen(
        TRAIN, cwd=workspace, env=places(workspace, home), stderr=subprocess.PIPE, text=True
    ) as training:
        give_up = time.monotonic() + 300
        while not _losses(home) and training.poll() is None and time.monotonic() < give_up:
            time.sleep(0.2)
        training.send_signal(signal.SIGINT)
        log = training.communicate(timeout=120)[1]
    assert training.returncode not in (0, -signal.SIGKILL), log
    assert not (workspace / "models").exists()
    assert not (workspace / "history.csv").exists()

    Outbox(
        f"sqlite:///{home}/mlflow/mlflow.db", home / "outbox", home / "mlflow" / "artifacts"
    ).sync()
    client = MlflowClient(f"sqlite:///{home}/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name("shoetagger")
    assert experiment is not None
    (stored,) = client.search_runs([experiment.experiment_id], RUNS_OF_TRAIN)
    assert stored.info.status == "KILLED"
    assert "loss/train" in stored.data.metrics


def _losses(home: Path) -> list[str]:
    """Return what a training has noted of its losses so far, sent to MLflow or not."""
    journals = home.glob("outbox/*/journal.jsonl")
    return [line for path in journals for line in path.read_text().splitlines() if "loss" in line]


@pytest.mark.slow
def test_training_goes_on_while_mlflow_is_down_and_sync_sends_its_run_later(
    workspace: Path, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    document = yaml.safe_load((workspace / "params.yaml").read_text())
    document["train"]["epochs"] = 2
    (workspace / "params.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    home = tmp_path / "state"
    environment = places(workspace, home) | {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    done = subprocess.run(
        TRAIN,
        cwd=workspace,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    warnings = [line for line in done.stderr.splitlines() if "MLflow" in line]
    assert len(warnings) == 1, done.stderr
    assert (workspace / "models" / "color" / "weights.safetensors").exists()

    database = f"sqlite:///{tmp_path}/later.db"
    for sent in (1, 0):
        report = Outbox(database, home / "outbox", home / "mlflow" / "artifacts").sync()
        assert (report.sent, report.waiting) == (sent, 0)
    client = MlflowClient(database)
    experiment = client.get_experiment_by_name("shoetagger")
    assert experiment is not None
    (stored,) = client.search_runs([experiment.experiment_id], RUNS_OF_TRAIN)
    assert stored.info.status == "FINISHED"
    history = client.get_metric_history(stored.info.run_id, "loss/train")
    assert [metric.step for metric in history] == [1, 2]
