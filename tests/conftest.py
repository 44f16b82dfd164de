"""What every test gets: an environment of its own, and no GPU tests where there is no GPU."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from shoetagger.ops.environment import Ports

# Settings of the person who runs the tests must not reach them, nor may keys to their buckets.
_OURS = ("SHOETAGGER_", "AIRFLOW_", "MLFLOW_TRACKING", "MLFLOW_PORT", "DVC_")
_OURS += ("AWS_", "AZURE_", "GOOGLE_")
for _name in list(os.environ):
    if _name.startswith(_OURS):
        del os.environ[_name]

# Before anything imports the tools: they read some of these only once.
os.environ |= {"DVC_NO_ANALYTICS": "1", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1"}

# The cores are full of test processes: threads of torch that wait for each other there spin, and
# a training that takes four seconds takes forty.
os.environ["OMP_NUM_THREADS"] = "1"

# All that tests import stays to the end: searching it for garbage, while it grows and after each
# test, takes a quarter of a quick test's time. `pytest_collection_finish` goes on with the search.
gc.disable()

# What a shell starts in the background ignores Ctrl-C, and so would the processes of the tests.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A bare machine has no identity to commit with.
for _role in ("AUTHOR", "COMMITTER"):
    os.environ[f"GIT_{_role}_NAME"] = "Test"
    os.environ[f"GIT_{_role}_EMAIL"] = "test@example.org"


@pytest.fixture(autouse=True)
def _state_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep state out of the repo: in a folder of the test, unless a wider fixture names one."""
    if "SHOETAGGER_HOME" not in os.environ:
        monkeypatch.setenv("SHOETAGGER_HOME", str(tmp_path / "home"))


@pytest.fixture
def ports() -> Ports:
    """Two ports of this machine that nothing listens on."""
    from helpers.ports import free_ports

    return free_ports()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own of 128 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128m", "tmpfs", str(place)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted here: it takes root")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this test run share, for what they need to make only once."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def empty_mlflow(shared: Path) -> Path:
    """An empty, migrated MLflow database, to copy."""
    from helpers import templates

    return templates.once(shared, "mlflow", templates.migrate_mlflow) / "mlflow.db"


@pytest.fixture(scope="session")
def installed_home(shared: Path) -> Path:
    """A home as `setup` leaves it, to copy: migrating Airflow's database takes ten seconds."""
    from helpers import templates

    return templates.once(shared, "installed", templates.set_up)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[tuple[str, str]]:
    """URL of a server, and the name of a migrated database there to copy."""
    import sqlalchemy as sa
    from helpers import postgres

    from shoetagger.ops.cluster.services import postgres_binaries
    from shoetagger.store.store import Store

    folder = postgres_binaries()
    if folder is None:
        pytest.skip("no PostgreSQL binaries on this machine (apt-get install postgresql)")
    with postgres.server(folder) as url, postgres.database(url) as template:
        with Store(template) as store:
            store.migrate()
        yield url, sa.make_url(template).database or ""


# The files that take longest, longest first: begun last, one would keep a single core busy while
# the others have nothing left to do. The fourth waits behind the first, so it is short; those that
# mostly wait themselves, for servers, do not run beside each other.
LONGEST = (
    "system/test_end_to_end.py",
    "system/test_in_step.py",
    "system/test_cluster.py",
    "system/test_overlaps.py",
    "docs/test_commands.py",
    "stages/test_stages.py",
    "orchestration/test_dags.py",
    "benchmarks/test_benchmarks.py",
    "ops/test_servers.py",
    "promotion/test_promotion.py",
    "collection/test_collect.py",
    "system/test_model.py",
    "pipeline/test_pipeline.py",
    "system/test_any_worker.py",
    "tracking/test_registry.py",
    "system/test_crashes.py",
    "tracking/test_own_server.py",
    "ingest/test_pool.py",
    "tagging/test_tagging.py",
    "desk/test_why.py",
    "desk/test_browser.py",
    "learning/test_fit.py",
    "system/test_backfill.py",
    "tracking/test_tracking.py",
    "cli/test_cli.py",
    "orchestration/test_approval.py",
    "ops/test_backup.py",
)


def pytest_collection_finish() -> None:
    """Search for garbage again from here on, but not among what has been imported."""
    gc.freeze()
    gc.enable()


def pytest_sessionfinish() -> None:
    """Leave no bundle and no server behind: what xdist ends does not get to exit handlers."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        gc.freeze()  # pytest searches all there is five times, in a process that ends anyway
    else:
        gc.unfreeze()  # or extension modules report what is frozen as leaked
    if bundles := sys.modules.get("helpers.bundles"):
        bundles.forget()
    if fork_server := sys.modules.get("helpers.fork_server"):
        fork_server.stop()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files; skip what is marked `gpu` where torch finds no CUDA device."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if torch.cuda.is_available():
        return
    for item in marked:
        item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
