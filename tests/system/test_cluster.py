"""`make cluster` as it is: real PostgreSQL, Redis, S3 and Airflow, with two Celery workers."""

from __future__ import annotations

import io
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from helpers.installation import ROOT, TAGS, make_live, make_project
from helpers.object_stores import ObjectStore
from helpers.recount import check_counts
from PIL import Image
from sqlalchemy import create_engine

from shoetagger.config.settings import Settings
from shoetagger.demo.airflow_api import Airflow
from shoetagger.ops.cluster import services, site
from shoetagger.ops.cluster.start import cluster
from shoetagger.ops.environment import HOST, Ports
from shoetagger.ops.processes import free_port_near, marked_processes
from shoetagger.ops.programs import down
from shoetagger.ops.servers import of_running
from shoetagger.store.store import Store

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(shutil.which("redis-server") is None, reason="needs redis-server"),
    pytest.mark.skipif(services.postgres_binaries() is None, reason="needs postgresql"),
]

PICTURES = 600  # what is worth two shards
# What no worker may know.
OF_SERVERS = (
    *("METADATA_PASSWORD", "FERNET_KEY", "JWT_SECRET", "API_SECRET", "SUPERUSER_PASSWORD"),
    *("MLFLOW_DATABASE_PASSWORD", "MLFLOW_SESSION_SECRET", "MLFLOW_S3_SECRET"),
)


@pytest.fixture
def settings() -> Iterator[Settings]:
    """A project with two shards of small batches; its servers find a dead worker in 15 s.

    PostgreSQL's user must be able to enter the folder, which pytest's are closed to.
    """
    folder = Path(tempfile.mkdtemp(prefix="shoetagger-cluster-"))
    folder.chmod(0o755)
    repo = make_project(folder / "project", batch_size=8, shards=2)
    shutil.copytree(ROOT / "deploy", repo / "deploy")
    for name in ("dags", "src"):
        (repo / name).symlink_to(ROOT / name)
    servers = repo / "deploy" / "servers.env"
    text = servers.read_text()
    assert "HEARTBEAT_TIMEOUT=120\n" in text
    servers.write_text(text.replace("HEARTBEAT_TIMEOUT=120\n", "HEARTBEAT_TIMEOUT=15\n"))
    settings = Settings.from_environment({"SHOETAGGER_REPO": str(repo)})
    try:
        yield settings
    finally:
        down(settings, lambda _: None)
        shutil.rmtree(folder)


def test_a_worker_that_is_killed_loses_nothing_and_knows_no_secret_of_the_servers(
    settings: Settings,
) -> None:
    ports = cluster(settings, Ports(free_port_near(28080), free_port_near(25000)), lambda _: None)
    values = site.read_site(settings)
    assert stat.S_IMODE(site.site_file(settings).stat().st_mode) == 0o600

    # Nothing listens but on the loopback interface.
    processes = marked_processes(settings)
    assert {
        connection.laddr.ip
        for _, process in processes
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    } == {HOST}
    # What the servers know, no worker does; nor does a command line tell what anybody knows.
    for name, process in processes:
        told = "\n".join(f"{k}={v}" for k, v in process.environ().items())
        if name.startswith("worker-"):
            assert not [secret for secret in OF_SERVERS if values[secret] in told], name
            assert "SQL_ALCHEMY_CONN" not in told
            assert "JWT" not in told
            assert "FERNET" not in told
        line = " ".join(process.cmdline())
        assert not [key for key, value in values.items() if len(value) > 20 and value in line
                    and not value.startswith(("/", "http", HOST))]  # fmt: skip

    # A night on both workers, one of which is killed with all that it started.
    of_cluster = of_running(settings)
    for seed, group in enumerate(("color", "style"), start=1):
        make_live(of_cluster, group, head_seed=seed)
    store_of_pictures = ObjectStore(values["S3_URL"], values["S3_SECRET"], processes[0][1])
    rng = np.random.default_rng(0)
    pictures = {}
    for number in range(PICTURES):
        data = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(data, "JPEG")
        pictures[f"inbox/{number}.jpg"] = data.getvalue()
    store_of_pictures.put_all(site.BUCKETS[0], pictures)

    airflow = Airflow(settings, ports)
    run = airflow.trigger("tag_new_images", {})
    with Store(of_cluster.store_url) as store:
        wait_until_tagged(store, at_least=60)
        running = [t for t in airflow.tasks("tag_new_images", run) if t.task_id == "tag_shard"]
        killed_at = time.monotonic()
        kill(settings, "worker-b")
        lines: list[str] = []
        tasks = airflow.follow("tag_new_images", run, lines.append)
        print(f"{time.monotonic() - killed_at:.0f} s from the kill to the end", *lines, sep="\n")
        summary = store.runs.latest(1)[0]
        rows = list(store.current.rows(list(TAGS)))
    assert [task.state for task in running] == ["running"] * 2
    tries = {task.map_index: task.try_number for task in tasks if task.task_id == "tag_shard"}
    assert sorted(tries.values()) == [1, 2]
    for name in ("a", "b"):
        log = (settings.home / "logs" / f"worker-{name}.log").read_text()
        assert "execute_workload" in log, name
    assert len(rows) == PICTURES
    assert all(len(row.locators) == 1 and set(row.groups) == {"color", "style"} for row in rows)
    assert {k: summary.counts[k] for k in ("seen", "new", "tagged", "rejected", "deferred")} == {
        "seen": PICTURES, "new": PICTURES, "tagged": PICTURES, "rejected": 0, "deferred": 0
    }  # fmt: skip
    engine = create_engine(of_cluster.store_url)
    check_counts(engine)
    engine.dispose()

    # All of it ends.
    listening = [int(values[name].rpartition(":")[2]) for name in ("POSTGRES", "REDIS", "S3_URL")]
    down(settings, lambda _: None)
    assert not marked_processes(settings)
    for port in (ports.airflow, ports.mlflow, *listening):
        with socket.socket() as probe:
            assert probe.connect_ex((HOST, port)) != 0


def wait_until_tagged(store: Store, at_least: int) -> None:
    for _ in range(1200):
        latest = store.runs.latest(1)
        if latest and latest[0].counts.get("tagged", 0) >= at_least:
            return
        time.sleep(0.1)
    raise AssertionError("nothing is tagged")


def kill(settings: Settings, worker: str) -> None:
    """Kill a worker's whole tree at once, as where its machine is lost."""
    tree = [process for name, process in marked_processes(settings) if name == worker]
    assert len(tree) >= 3, "the worker, its pool and a task"
    for process in tree:
        process.suspend()
    for process in tree:
        process.kill()
    psutil.wait_procs(tree, timeout=10)
