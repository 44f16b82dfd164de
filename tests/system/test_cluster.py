"""`make cluster` as it is: real PostgreSQL, Redis, S3 and Airflow, with two Celery workers."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import redis
from benchmarks.cluster import bucket_of, kill, processes
from helpers.installation import ROOT, TAGS, make_live, make_project
from helpers.recount import check_counts
from helpers.statsd import Collector
from PIL import Image
from sqlalchemy import create_engine

from shoetagger.config.settings import GPU_POOL, Settings
from shoetagger.demo.__main__ import TAGGING
from shoetagger.demo.airflow_api import Airflow, TaskState
from shoetagger.ops.cluster import services, site
from shoetagger.ops.cluster.start import cluster
from shoetagger.ops.environment import HOST, Ports
from shoetagger.ops.processes import free_port_near, marked_processes, read_state
from shoetagger.ops.programs import Program, down, start
from shoetagger.ops.servers import credentials, of_running
from shoetagger.store.store import Store

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(shutil.which("redis-server") is None, reason="needs redis-server"),
    pytest.mark.skipif(services.postgres_binaries() is None, reason="needs postgresql"),
]

OF_TWO_SHARDS = 600
OF_ONE_SHARD = 200
BATCH = 8
GROUPS = ("color", "style")
# In deploy/servers.env. By default a new connection is given up after 4 s: 5 is enough to see it.
SOONER = {
    "HEARTBEAT_TIMEOUT=120\n": "HEARTBEAT_TIMEOUT=15\n",
    "OPERATION_TIMEOUT=20\n": "OPERATION_TIMEOUT=5\n",
}
# There, too: DAG files do not change here, and to read them anew every 30 s takes CPU.
SELDOM = "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL=3600\n"
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
    """A project with two shards of small batches, whose servers wait less for what is lost.

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
    for slow, quick in SOONER.items():
        assert slow in text
        text = text.replace(slow, quick)
    servers.write_text(text + SELDOM)
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
        for seed, group in enumerate(GROUPS, start=1):
            make_live(of_running(settings), group, head_seed=seed)
        yield Cluster(settings, ports, site.read_site(settings), metrics)


def test_it_listens_on_loopback_alone(running: Cluster) -> None:
    listening = set()
    for _, process in marked_processes(running.settings):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended since
            for connection in process.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    listening.add(connection.laddr.ip)
    assert listening == {HOST}


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


def test_a_broker_that_is_killed_amid_a_night_costs_no_task_a_try(running: Cluster) -> None:
    night = Night.begin(running, OF_ONE_SHARD)
    wait_until_tagged(running, at_least=3 * BATCH)
    (broker,) = processes(running.settings, "redis")
    program = Program(broker.cmdline(), broker.environ(), Path(broker.cwd()))
    broker.kill()
    # The shard goes on and ends, and the scheduler cannot hand out the task that follows.
    wait_until(lambda: night.states("publish") == ["queued"], "publish is not queued")
    time.sleep(15)  # three attempts: the first loses its connection, the others find none
    assert night.states("publish") == ["queued"]
    known = read_state(running.settings)
    assert known is not None
    start(running.settings, known, {"redis": program})
    tasks = night.follow()
    assert {task.try_number for task in tasks} == {1}
    check_night(running, OF_ONE_SHARD)


def test_a_shard_that_runs_twice_at_once_tags_every_picture_once(running: Cluster) -> None:
    refused_before = refused(running)
    with subprocess.Popen(
        [sys.executable, "-c", SHARD_AGAIN],
        env=site.worker_environment(running.settings, running.values, "again"),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as again:  # fmt: skip
        assert again.stdin
        assert again.stdout
        with no_gpu_slots(running):
            night = Night.begin(running, OF_ONE_SHARD)
            wait_until(lambda: bool(night.result("shards")), "there is nothing to tag")
            print(json.dumps(night.result("begin")), file=again.stdin, flush=True)
            # It waits after its first batch until the worker's shard is on its way, too.
            assert "tagged\n" in again.stdout
        wait_until_tagged(running, at_least=3 * BATCH)
        deliver_again(running.values)
        output, _ = again.communicate("go on\n", timeout=120)
    tasks = night.follow()
    assert {task.try_number for task in tasks} == {1}
    assert night.result("tag_shard", 0)["tagged"] > 0
    assert json.loads(output.splitlines()[-1])["tagged"] > 0
    check_night(running, OF_ONE_SHARD)
    # The other worker took the message that came a second time, and left the task alone.
    assert refused(running) == refused_before + 1


def test_a_worker_that_is_killed_amid_its_shard_loses_and_doubles_nothing(running: Cluster) -> None:
    told_before, _ = running.metrics.received()
    night = Night.begin(running, OF_TWO_SHARDS)
    both = ["running", "running"]
    wait_until(lambda: night.states("tag_shard") == both, "there is no shard on each worker")
    wait_until_tagged(running, at_least=60)
    before = night.states("tag_shard")
    assert len(processes(running.settings, "worker-b")) >= 3, "the worker, its pool and a task"
    kill(running.settings, "worker-b")
    tasks = night.follow()
    assert before == both, "one has ended before the kill"
    assert sorted(t.try_number for t in tasks if t.task_id == "tag_shard") == [1, 2]
    check_night(running, OF_TWO_SHARDS)
    # The killed task told of its batches, but perhaps for the last one; then it told no more.
    told, _ = running.metrics.received()
    told -= told_before
    assert 0 <= OF_TWO_SHARDS - told["airflow.shoetagger.pictures"] <= BATCH
    assert told["airflow.ti.finish.tag_new_images.finish.success"] == 1


def test_all_of_it_is_published_in_the_bucket_as_one_days_table(running: Cluster) -> None:
    listed = bucket_of(running.values).list("published/parquet").collect()
    (table,) = (entry["path"] for entry in listed if entry["path"].endswith("tags.parquet"))
    published = bucket_of(running.values).get(table).bytes()
    assert pq.read_metadata(io.BytesIO(published)).num_rows == in_inbox(running)


def test_the_desk_shows_what_was_published(running: Cluster) -> None:
    with logged_in(running) as client:
        page = client.get("/pictures/")
    assert page.status_code == 200
    assert f"{in_inbox(running):,} pictures" in page.text


def test_nothing_is_left_of_it(running: Cluster) -> None:
    down(running.settings, lambda _: None)
    assert not marked_processes(running.settings)
    addresses = (running.values[name] for name in ("POSTGRES", "REDIS", "S3_URL"))
    listening = [int(address.rpartition(":")[2]) for address in addresses]
    for port in (running.ports.airflow, running.ports.mlflow, *listening):
        with socket.socket() as probe:
            assert probe.connect_ex((HOST, port)) != 0


@contextlib.contextmanager
def logged_in(running: Cluster) -> Iterator[httpx.Client]:
    user, password = credentials(running.settings)
    with httpx.Client(base_url=running.ports.airflow_url, timeout=60) as client:
        answer = client.post("/auth/token", json={"username": user, "password": password})
        client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        yield client


@contextlib.contextmanager
def no_gpu_slots(running: Cluster) -> Iterator[None]:
    """Let tasks of the GPU's pool wait within the block."""

    def set_slots(slots: int) -> None:
        body = {"pool": GPU_POOL, "slots": slots, "include_deferred": False}
        client.patch(f"/api/v2/pools/{GPU_POOL}", json=body).raise_for_status()

    with logged_in(running) as client:
        set_slots(0)
        try:
            yield
        finally:
            set_slots(2)


def refused(running: Cluster) -> int:
    """Count the messages that workers left alone, as their tasks ran already."""
    logs = (running.settings.home / "logs").glob("worker-*.log")
    return sum(log.read_text().count("already running elsewhere, ignoring") for log in logs)


# A shard without Airflow, which would refuse it, as on a worker that was believed dead.
SHARD_AGAIN = """
import json, sys
from shoetagger.config.settings import Settings
from shoetagger.inference import engine  # what takes long to import
from shoetagger.ops.installation import opened
from shoetagger.orchestration import nightly
from shoetagger.tagging.run import TaggingRun

def wait_once(pictures):
    global wait
    if wait:
        wait = False
        print("tagged", flush=True)
        sys.stdin.readline()

wait, run = True, TaggingRun.model_validate_json(sys.stdin.readline())
with opened(Settings.from_environment(), unattended=True) as installation:
    print(json.dumps(nightly.tag_shard(installation, run, 0, 1, wait_once)))
"""


@dataclass(frozen=True)
class Night:
    """A run of the nightly DAG."""

    airflow: Airflow
    run: str

    @classmethod
    def begin(cls, running: Cluster, pictures: int) -> Night:
        """Let pictures arrive, and start a night for them."""
        let_arrive(running, pictures)
        airflow = Airflow(running.settings, running.ports)
        return cls(airflow, airflow.trigger(TAGGING, {}))

    def states(self, task_id: str) -> list[str | None]:
        tasks = self.airflow.tasks(TAGGING, self.run)
        return [task.state for task in tasks if task.task_id == task_id]

    def result(self, task_id: str, map_index: int = -1) -> dict[str, Any]:
        result: dict[str, Any] = self.airflow.result(TAGGING, self.run, task_id, map_index)
        return result

    def follow(self) -> list[TaskState]:
        return self.airflow.follow(TAGGING, self.run, lambda _: None)


def let_arrive(running: Cluster, pictures: int) -> None:
    """Put small pictures of noise into the inbox."""
    inbox, known = bucket_of(running.values), in_inbox(running)
    rng = np.random.default_rng(known)
    for number in range(known, known + pictures):
        data = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(data, "JPEG")
        inbox.put(f"inbox/{number}.jpg", data.getvalue())


def in_inbox(running: Cluster) -> int:
    return len(bucket_of(running.values).list("inbox").collect())


def check_night(running: Cluster, new: int) -> None:
    """Check what the last night counted, and that all pictures there are are tagged once."""
    url = of_running(running.settings).store_url
    with Store(url) as store:
        latest = store.runs.latest(1)[0]
        rows = list(store.current.rows(list(TAGS)))
    counts = {"seen": len(rows), "new": new, "tagged": new, "rejected": 0, "deferred": 0}
    assert {name: latest.counts[name] for name in counts} == counts
    assert len(rows) == in_inbox(running)
    assert all(len(row.locators) == 1 and set(row.groups) == set(GROUPS) for row in rows)
    engine = create_engine(url)
    check_counts(engine)
    engine.dispose()


def deliver_again(values: Mapping[str, str]) -> None:
    """Put the messages of the tasks that run on the broker again, as after `visibility_timeout`."""
    host, _, port = values["REDIS"].partition(":")
    with redis.Redis(host, int(port), password=values["BROKER_PASSWORD"]) as broker:
        running = [json.loads(entry) for entry in broker.hvals("unacked")]
        assert running
        for message, _, queue in running:
            broker.lpush(queue, json.dumps(message))


def wait_until_tagged(running: Cluster, at_least: int) -> None:
    """Wait until the run that goes on has tagged so many."""
    with Store(of_running(running.settings).store_url) as store:

        def tagged() -> bool:
            latest = store.runs.latest(1)
            going_on = bool(latest) and latest[0].state == "running"
            return going_on and latest[0].counts["tagged"] >= at_least

        wait_until(tagged, "nothing is tagged")


def wait_until(condition: Callable[[], bool], otherwise: str) -> None:
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError(otherwise)
