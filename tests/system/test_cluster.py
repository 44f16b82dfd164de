"""`make cluster` as it is: real PostgreSQL, Redis, S3 and Airflow, with two Celery workers."""

from __future__ import annotations

import io
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from helpers.installation import ROOT, TAGS, make_live, make_project
from helpers.recount import check_counts
from helpers.statsd import Collector
from obstore.store import S3Store
from PIL import Image
from sqlalchemy import create_engine

from shoetagger.config.settings import Settings
from shoetagger.demo.airflow_api import Airflow
from shoetagger.ops.cluster import services, site
from shoetagger.ops.cluster.start import cluster
from shoetagger.ops.environment import HOST, Ports
from shoetagger.ops.processes import free_port_near, marked_processes
from shoetagger.ops.programs import down
from shoetagger.ops.servers import credentials, of_running
from shoetagger.store.store import Store

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(shutil.which("redis-server") is None, reason="needs redis-server"),
    pytest.mark.skipif(services.postgres_binaries() is None, reason="needs postgresql"),
]

PICTURES = 600  # what is worth two shards
BATCH = 8
# What no worker may know.
OF_SERVERS = (
    *("METADATA_PASSWORD", "FERNET_KEY", "JWT_SECRET", "API_SECRET", "SUPERUSER_PASSWORD"),
    *("MLFLOW_DATABASE_PASSWORD", "MLFLOW_SESSION_SECRET", "MLFLOW_S3_SECRET"),
)
OF_ALL = ("BROKER_PASSWORD", "RESULTS_PASSWORD", "STORE_PASSWORD", "MLFLOW_PASSWORD", "S3_SECRET")


@dataclass(frozen=True)
class Cluster:
    """What runs: the settings that it was started with, its ports and its site.env."""

    settings: Settings
    ports: Ports
    values: dict[str, str]
    metrics: Collector


@pytest.fixture(scope="module")
def settings() -> Iterator[Settings]:
    """A project with two shards of small batches; its servers find a dead worker in 15 s.

    PostgreSQL's user must be able to enter the folder, and pytest's are closed to others.
    """
    folder = Path(tempfile.mkdtemp(prefix="shoetagger-cluster-"))
    folder.chmod(0o755)
    repo = make_project(folder / "project", batch_size=BATCH, shards=2)
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


@pytest.fixture(scope="module")
def running(settings: Settings) -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch, Collector() as metrics:
        patch.setenv("SHOETAGGER_STATSD", f"{HOST}:{metrics.port}")
        ports = Ports(free_port_near(28080), free_port_near(25000))
        cluster(settings, ports, lambda _: None)
        yield Cluster(settings, ports, site.read_site(settings), metrics)


def test_it_listens_on_loopback_alone(running: Cluster) -> None:
    assert {
        connection.laddr.ip
        for _, process in marked_processes(running.settings)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    } == {HOST}


def test_no_worker_knows_a_secret_of_the_servers_and_no_command_line_shows_one(
    running: Cluster,
) -> None:
    values = running.values
    assert stat.S_IMODE(site.site_file(running.settings).stat().st_mode) == 0o600
    workers = set()
    for name, process in marked_processes(running.settings):
        line = " ".join(process.cmdline())
        assert not [secret for secret in (*OF_SERVERS, *OF_ALL) if values[secret] in line], name
        if name.startswith("worker-"):
            workers.add(name)
            told = "\n".join(f"{k}={v}" for k, v in process.environ().items())
            assert not [secret for secret in OF_SERVERS if values[secret] in told], name
            assert not [word for word in ("SQL_ALCHEMY_CONN", "JWT", "FERNET") if word in told]
    assert workers == {"worker-a", "worker-b"}


def test_a_worker_that_is_killed_amid_its_shard_loses_and_doubles_nothing(running: Cluster) -> None:
    of_cluster = of_running(running.settings)
    for seed, group in enumerate(("color", "style"), start=1):
        make_live(of_cluster, group, head_seed=seed)
    let_arrive(running)
    airflow = Airflow(running.settings, running.ports)
    run = airflow.trigger("tag_new_images", {})
    with Store(of_cluster.store_url) as store:
        wait_until_tagged(store, at_least=60)
        before = [t.state for t in airflow.tasks("tag_new_images", run) if t.task_id == "tag_shard"]
        kill(running.settings, "worker-b")
        tasks = airflow.follow("tag_new_images", run, lambda _: None)
        summary = store.runs.latest(1)[0]
        rows = list(store.current.rows(list(TAGS)))

    assert before == ["running", "running"], "one on each worker"
    assert sorted(t.try_number for t in tasks if t.task_id == "tag_shard") == [1, 2]
    assert len(rows) == PICTURES
    assert all(len(row.locators) == 1 and set(row.groups) == {"color", "style"} for row in rows)
    counts = {"seen": PICTURES, "new": PICTURES, "tagged": PICTURES, "rejected": 0, "deferred": 0}
    assert {name: summary.counts[name] for name in counts} == counts
    engine = create_engine(of_cluster.store_url)
    check_counts(engine)
    engine.dispose()
    # It is published in the bucket, as one day's table.
    listed = bucket(running).list("published/parquet").collect()
    (table,) = (entry["path"] for entry in listed if entry["path"].endswith("tags.parquet"))
    published = bucket(running).get(table).bytes()
    assert pq.read_metadata(io.BytesIO(published)).num_rows == PICTURES
    # The killed task told of its batches, but perhaps for the last one; then it told no more.
    told, _ = running.metrics.received()
    assert 0 <= PICTURES - told["airflow.shoetagger.pictures"] <= BATCH
    assert told["airflow.ti.finish.tag_new_images.finish.success"] == 1


def test_the_desk_shows_what_was_published(running: Cluster) -> None:
    user, password = credentials(running.settings)
    with httpx.Client(base_url=running.ports.airflow_url, timeout=60) as browser:
        answer = browser.post("/auth/token", json={"username": user, "password": password})
        browser.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        page = browser.get("/pictures/")
    assert page.status_code == 200
    assert f"{PICTURES} pictures" in page.text


def test_nothing_is_left_of_it(running: Cluster) -> None:
    down(running.settings, lambda _: None)
    assert not marked_processes(running.settings)
    addresses = (running.values[name] for name in ("POSTGRES", "REDIS", "S3_URL"))
    listening = [int(address.rpartition(":")[2]) for address in addresses]
    for port in (running.ports.airflow, running.ports.mlflow, *listening):
        with socket.socket() as probe:
            assert probe.connect_ex((HOST, port)) != 0


def let_arrive(running: Cluster) -> None:
    """Put small pictures of noise into the inbox."""
    inbox, rng = bucket(running), np.random.default_rng(0)
    for number in range(PICTURES):
        data = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(data, "JPEG")
        inbox.put(f"inbox/{number}.jpg", data.getvalue())


def bucket(running: Cluster) -> S3Store:
    return S3Store(
        site.BUCKETS[0],
        endpoint=running.values["S3_URL"],
        region=running.values["S3_REGION"],
        access_key_id=running.values["S3_KEY"],
        secret_access_key=running.values["S3_SECRET"],
        client_options={"allow_http": True},
    )


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
