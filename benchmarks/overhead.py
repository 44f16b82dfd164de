"""What Airflow adds to a night: `python -m benchmarks.overhead --pictures FOLDER`.

The nightly DAG on real servers, from its trigger to the end of its run, against `shoetagger night`
from its start to its end: over the same pictures, each in a state of its own, and once more when
there is nothing new.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
import yaml

from shoetagger.config import params
from shoetagger.config.settings import Settings
from shoetagger.demo.__main__ import TAGGING
from shoetagger.demo.airflow_api import Airflow
from shoetagger.images.decode import Limits
from shoetagger.images.views import Transform
from shoetagger.inference.bundle import load_bundle
from shoetagger.ops.environment import Ports, whole_environment
from shoetagger.ops.servers import down, up
from shoetagger.ops.setup import setup
from shoetagger.tracking.registry import CHAMPION, Registry

from .bundles import make_bundles
from .pictures import PicturesOption, folder_of

REPO = Path(__file__).parents[1]
GROUPS = 3


def main(
    pictures: PicturesOption = None,
    count: Annotated[int, typer.Option(help="Shoes to draw, without a folder.")] = 64,
) -> None:
    """Print the seconds of a night with new pictures and of one without, both ways."""
    options = params.load(REPO / "params.yaml")
    with tempfile.TemporaryDirectory(prefix="shoetagger-overhead-") as temporary:
        folder = Path(temporary)
        inbox = folder_of(pictures, folder / "drawn", count)
        bundles = make_bundles(
            folder / "bundles",
            GROUPS,
            options.train.freeze,
            [options.train_of(group).pooled for group in options.groups],
            Transform.of(options.images),
        )
        repo = project(folder / "repo", bundles)
        direct, through = (
            installation(repo, folder / name, inbox, bundles) for name in ("direct", "through")
        )
        ports = up(through, Ports.from_environment(), lambda _: None)
        try:
            airflow = Airflow(through, ports)
            print("| night | directly, s | through Airflow, s | of which tasks ran, s |")
            print("| --- | --- | --- | --- |")
            for name in ("every picture is new", "nothing is new"):
                alone = seconds_directly(direct)
                whole, running = seconds_through(airflow)
                print(f"| {name} | {alone:.1f} | {whole:.1f} | {running:.1f} |", flush=True)
        finally:
            down(through, lambda _: None)


def project(folder: Path, bundles: Sequence[Path]) -> Path:
    """Make a project whose groups are those of the bundles, with this project's DAGs."""
    shutil.copytree(REPO / "dags", folder / "dags", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "dvc.yaml").touch()
    document = yaml.safe_load((REPO / "params.yaml").read_text())
    loaded = [load_bundle(bundle) for bundle in bundles]
    document["groups"] = {bundle.group: {"tags": list(bundle.tags)} for bundle in loaded}
    document["audit"]["exclusive"] = []  # names tags of other groups
    (folder / "params.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    return folder


def installation(repo: Path, home: Path, inbox: Path, bundles: Sequence[Path]) -> Settings:
    """Make a state whose registry has every bundle as champion: the first night takes them over."""
    settings = Settings.from_environment(
        {
            "SHOETAGGER_REPO": str(repo),
            "SHOETAGGER_HOME": str(home),
            "SHOETAGGER_INBOX": str(inbox),
            "SHOETAGGER_DEVICE": "cpu",
        }
    )
    setup(settings, Ports.from_environment(), lambda _: None)
    registry = Registry(settings.tracking_uri, settings.artifacts)
    limits = Limits.of(params.load(settings.params_file).images)
    for bundle in bundles:
        version = registry.register(bundle, limits=limits, tags={}, metrics={})
        registry.set_alias(version.group, CHAMPION, version.number)
    return settings


def seconds_directly(settings: Settings) -> float:
    """Run a night in one process; return the seconds from its start to its end."""
    # That of Airflow's tasks, but for a server of MLflow's, which this state has none of.
    environment = whole_environment(settings, Ports.from_environment())
    environment["MLFLOW_TRACKING_URI"] = settings.tracking_uri
    command = [sys.executable, "-m", "shoetagger.cli.app", "night"]
    started = time.perf_counter()
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return time.perf_counter() - started


def seconds_through(airflow: Airflow) -> tuple[float, float]:
    """Trigger the nightly DAG; return the seconds to its end, and the sum of its tasks' own."""
    started = time.perf_counter()
    run = airflow.trigger(TAGGING, {})
    tasks = airflow.follow(TAGGING, run, lambda _: None)
    return time.perf_counter() - started, sum(task.seconds or 0.0 for task in tasks)


if __name__ == "__main__":
    typer.run(main)
