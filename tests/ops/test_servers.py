from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import psutil
import pytest
from helpers.statsd import Collector

from shoetagger.config.settings import Settings
from shoetagger.errors import ShoetaggerError
from shoetagger.ops.environment import (
    HOST,
    MARK,
    NAME,
    Ports,
    ServersError,
    airflow_environment,
    airflow_home,
    mlflow_address,
    passwords_file,
    whole_environment,
)
from shoetagger.ops.people import passwords, people
from shoetagger.ops.processes import Started, marked_processes, write_state
from shoetagger.ops.servers import credentials, down, login, server_commands, status, up
from shoetagger.ops.setup import _migrated_beside, _write_secrets
from shoetagger.tracking.connection import MLflowUnavailable
from shoetagger.tracking.login import (
    ensure_login,
    is_own,
    login_file,
    login_variables,
    read_login,
)
from shoetagger.tracking.registry import Registry

SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}
SOURCES = Path(__file__).parents[2] / "src"

DAG = """
from airflow.sdk import dag, task

@dag(schedule=None)
def counting():
    @task(pool="gpu")
    def count() -> int:
        print("counted in the task")
        return 1

    @task
    def hang(_: int) -> None:
        import subprocess
        subprocess.run(["sleep", "3600"], start_new_session=True)

    hang(count())

counting()
"""


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    """An installation with a small DAG of its own; whatever it starts is ended after the test."""
    repo = tmp_path / "repo"
    (repo / "dags").mkdir(parents=True)
    (repo / "src").symlink_to(SOURCES)
    (repo / "dags" / "counting.py").write_text(DAG)
    shutil.copy(SOURCES.parent / "params.yaml", repo)
    (repo / "dvc.yaml").touch()
    settings = Settings.from_environment({"SHOETAGGER_REPO": str(repo)})
    settings.home.mkdir()
    yield settings
    down(settings, lambda _: None)


def listening(processes: list[psutil.Process]) -> set[tuple[str, int]]:
    return {
        (connection.laddr.ip, connection.laddr.port)
        for process in processes
        for connection in process.net_connections("all")
        if connection.status == psutil.CONN_LISTEN and connection.laddr
    }


def command_line(
    settings: Settings, ports: Ports, command: str, **environment: str
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "shoetagger.ops.servers", command],
        env=os.environ
        | {
            "SHOETAGGER_REPO": str(settings.repo),
            "SHOETAGGER_HOME": str(settings.home),
            "AIRFLOW_PORT": str(ports.airflow),
            "MLFLOW_PORT": str(ports.mlflow),
            "SHOETAGGER_USERS": "kim:viewer",
        }
        | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def sleeper(**environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "600"], env=os.environ | environment)


# --- without servers ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "complaint"),
    [
        ({"AIRFLOW_PORT": "http"}, "AIRFLOW_PORT='http' is not a port"),
        ({"MLFLOW_PORT": "70000"}, "MLFLOW_PORT='70000' is not a port"),
        ({"AIRFLOW_PORT": "5000"}, "both 5000"),
    ],
)
def test_a_bad_port_is_refused_by_name(environ: dict[str, str], complaint: str) -> None:
    with pytest.raises(ServersError, match=complaint):
        Ports.from_environment(environ)


def test_a_taken_port_is_refused_with_its_owner_and_the_way_out(
    settings: Settings, ports: Ports
) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, ports.mlflow))
        taken.listen()
        with pytest.raises(ServersError) as caught:
            up(settings, ports)
        message = str(caught.value)
    assert f"port {ports.mlflow} for MLflow is taken by process {os.getpid()}" in message
    assert "MLFLOW_PORT=" in message
    assert not marked_processes(settings)


def test_the_settings_of_another_airflow_do_not_reach_ours(
    settings: Settings, ports: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql://company/airflow")
    monkeypatch.setenv("AIRFLOW__CELERY__BROKER_URL", "redis://company")
    environment = whole_environment(settings, ports)
    assert "company" not in " ".join(environment.values())


def test_another_mlflow_is_used_and_none_started(settings: Settings, ports: Ports) -> None:
    theirs = replace(settings, tracking_uri="https://mlflow.example.org")
    assert "mlflow" not in server_commands(theirs, ports)
    assert airflow_environment(theirs, ports)["MLFLOW_TRACKING_URI"] == theirs.tracking_uri


def test_results_stay_on_the_machine_unless_shared_on_purpose(
    settings: Settings, ports: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert airflow_environment(settings, ports)["SHOETAGGER_SHARE_RESULTS"] == "no"
    monkeypatch.setenv("SHOETAGGER_SHARE_RESULTS", "yes")
    assert airflow_environment(settings, ports)["SHOETAGGER_SHARE_RESULTS"] == "yes"


def test_people_are_sent_where_they_open_mlflow(settings: Settings, ports: Ports) -> None:
    own = f"http://localhost:{ports.mlflow}/#/?workflowType=machine_learning"
    assert mlflow_address(settings, ports) == own
    theirs = replace(settings, tracking_uri="http://me:secret@mlflow.internal:5000")
    assert mlflow_address(theirs, ports).startswith("http://mlflow.internal:5000/#/")
    told = replace(theirs, mlflow_url="https://mlflow.example")
    assert mlflow_address(told, ports).startswith("https://mlflow.example/#/")


def test_our_own_mlflow_named_by_its_address_is_still_ours(
    settings: Settings, ports: Ports
) -> None:
    ours = replace(settings, tracking_uri=ports.mlflow_url)
    assert "mlflow" in server_commands(ours, ports)


def test_an_interrupted_migration_leaves_the_database_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "some.db"
    path.write_bytes(b"")

    def cut_off() -> None:
        with _migrated_beside(path) as beside:
            beside.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cut_off()
    assert path.read_bytes() == b""


def test_down_ends_what_is_marked_and_nothing_else(settings: Settings) -> None:
    home = str(settings.home.resolve())
    ours = sleeper(**{MARK: home, NAME: "scheduler"})
    elsewhere = sleeper(**{MARK: home + "-of-another"})
    recycled = sleeper()
    state = Started(Ports(), {"scheduler": (recycled.pid, 1.0)})
    write_state(settings, state)
    try:
        assert "has ended" in status(settings)
        assert down(settings) == 1
        assert not psutil.pid_exists(ours.pid)
        assert elsewhere.poll() is None
        assert recycled.poll() is None
        assert down(settings) == 0
    finally:
        for process in (ours, elsewhere, recycled):
            process.kill()
            process.wait()


def test_down_kills_what_ignores_a_polite_request(settings: Settings) -> None:
    stubborn = subprocess.Popen(
        ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"],
        env=os.environ | {MARK: str(settings.home.resolve()), NAME: ""},
        stdout=subprocess.PIPE,
    )
    assert stubborn.stdout is not None
    stubborn.stdout.readline()
    down(settings)
    assert not psutil.pid_exists(stubborn.pid)
    stubborn.stdout.close()
    stubborn.wait()
    assert not marked_processes(settings)


def test_secrets_are_written_once_for_their_owner_only(settings: Settings) -> None:
    airflow_home(settings).mkdir()
    _write_secrets(settings)
    files = list(airflow_home(settings).iterdir())
    before = {file: file.read_bytes() for file in files}
    assert [file.name for file in sorted(files)] == ["airflow.cfg", "passwords.json"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    _write_secrets(settings)
    assert {file: file.read_bytes() for file in files} == before
    assert len(credentials(settings)[1]) >= 16


def test_everybody_gets_a_password_once_and_keeps_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, ports: Ports
) -> None:
    airflow_home(settings).mkdir()
    _write_secrets(settings)
    _, before = credentials(settings)
    monkeypatch.setenv("SHOETAGGER_USERS", "ann:user, kim:viewer")
    _write_secrets(settings)
    listed = login(settings)
    assert credentials(settings)[1] == before
    assert f"user admin, password {before}\n" in listed
    for name, role in (("ann", "user"), ("kim", "viewer")):
        assert re.search(rf"user {name}, password \S{{16}} \({role}\)", listed)
    roles = airflow_environment(settings, ports)["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS"]
    assert roles == "admin:admin,ann:user,kim:viewer"
    _write_secrets(settings)
    assert login(settings) == listed
    monkeypatch.delenv("SHOETAGGER_USERS")
    assert "ann" not in login(settings)


@pytest.mark.parametrize("users", ["ann", "ann:boss", "a b:user", "admin:user", "ann:user,ann:op"])
def test_a_wrong_user_is_refused_by_name(users: str) -> None:
    with pytest.raises(ShoetaggerError, match=r"SHOETAGGER_USERS: .*(name:role|twice)"):
        people({"SHOETAGGER_USERS": users})


def test_the_login_of_mlflow_is_written_once_and_given_to_our_server_alone(
    settings: Settings, ports: Ports
) -> None:
    artifacts = settings.artifacts
    assert login_variables(ports.mlflow_url, artifacts) == {}
    artifacts.mkdir(parents=True)
    login = ensure_login(artifacts, ports.mlflow_url)
    assert stat.S_IMODE(login_file(artifacts).stat().st_mode) == 0o600
    assert len(login.password) >= 16
    assert ensure_login(artifacts, ports.mlflow_url) == login
    assert ensure_login(artifacts, "http://127.0.0.1:9").password == login.password
    ensure_login(artifacts, ports.mlflow_url)
    with_it = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": login.password}
    for address in (ports.mlflow_url, ports.mlflow_url.replace(HOST, "localhost")):
        assert login_variables(address, artifacts) == with_it
        assert is_own(address, artifacts)
    assert not is_own("http://127.0.0.1:9", artifacts), "it may be the end of a tunnel"
    for another in (
        "http://127.0.0.1:9",
        f"http://mlflow.example.org:{ports.mlflow}",
        f"http://me:secret@{HOST}:{ports.mlflow}",
        settings.mlflow_database,
    ):
        assert login_variables(another, artifacts) == {}


def test_login_shows_both_passwords(settings: Settings, ports: Ports) -> None:
    airflow_home(settings).mkdir()
    _write_secrets(settings)
    settings.artifacts.mkdir(parents=True)
    mlflow = ensure_login(settings.artifacts, ports.mlflow_url)
    airflow, of_mlflow = login(settings).splitlines()
    assert airflow.endswith(f"user admin, password {credentials(settings)[1]}")
    assert of_mlflow.endswith(f"user admin, password {mlflow.password}")


def test_login_before_set_up_says_what_to_do(settings: Settings) -> None:
    with pytest.raises(ShoetaggerError, match="make up"):
        login(settings)


# --- with servers ---------------------------------------------------------------------------


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as found:
        yield found


@pytest.mark.slow
def test_servers_survive_a_cut_off_start_run_a_dag_on_loopback_and_leave_nothing(
    settings: Settings, ports: Ports, collector: Collector
) -> None:
    # A start that is killed half way leaves processes behind ...
    cut_off = command_line(settings, ports, "up")
    deadline = time.monotonic() + 200
    while len(marked_processes(settings)) < 3 and cut_off.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    cut_off.kill()
    cut_off.communicate()
    assert marked_processes(settings)

    # ... and the next one copes.
    statsd = {"SHOETAGGER_STATSD": f"{HOST}:{collector.port}"}
    again = command_line(settings, ports, "up", **statsd)
    output, _ = again.communicate()
    assert again.returncode == 0, output
    processes = [process for _, process in marked_processes(settings)]
    assert listening(processes) == {(HOST, ports.airflow), (HOST, ports.mlflow)}
    assert len({process.pid for process in processes}) == len(processes)

    # A second `up` starts nothing.
    twice = command_line(settings, ports, "up")
    output, _ = twice.communicate()
    assert (twice.returncode, "already running" in output) == (0, True)
    assert {p.pid for p in processes} == {p.pid for _, p in marked_processes(settings)}

    # Nobody gets in without the password, which no log shows.
    api = httpx.Client(base_url=ports.airflow_url, timeout=30)
    for guarded in ("/api/v2/dags", "/pictures/", "/pictures/static/desk.js"):
        assert api.get(guarded).status_code == 401
    user, password = credentials(settings)
    answer = api.post("/auth/token", json={"username": user, "password": password})
    api.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
    for log in (settings.home / "logs").iterdir():
        assert password not in log.read_text()

    # The desk is there for whoever is logged in, and says that nothing is tagged yet.
    desk = api.get("/pictures/")
    assert (desk.status_code, "No pictures yet" in desk.text) == (200, True), desk.text
    viewer = httpx.Client(base_url=ports.airflow_url, timeout=30)
    answer = viewer.post(
        "/auth/token",
        json={"username": "kim", "password": passwords(passwords_file(settings))["kim"]},
    )
    viewer.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
    assert viewer.get("/pictures/").status_code == 200
    for client, status_code in ((viewer, 403), (api, 422)):
        answer = client.post("/pictures/undo", json={"ids": [1]}, headers=SAME_ORIGIN)
        assert answer.status_code == status_code, answer.text
    viewer.close()
    views = api.get("/api/v2/plugins").json()["plugins"]
    assert [view["url_route"] for plugin in views for view in plugin["external_views"]] == [
        "pictures"
    ]

    # A task runs in the pool, and its log can be read though no log server runs.
    run = "/api/v2/dags/counting/dagRuns"
    deadline = time.monotonic() + 120  # the starts may have taken longer than the first one
    while api.get("/api/v2/dags/counting").status_code == 404 and time.monotonic() < deadline:
        time.sleep(0.5)
    answer = api.post(run, json={"logical_date": None})
    tasks = f"{run}/{answer.json()['dag_run_id']}/taskInstances"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        states = {
            task["task_id"]: task["state"] for task in api.get(tasks).json()["task_instances"]
        }
        if states == {"count": "success", "hang": "running"}:
            break
        time.sleep(0.5)
    assert states == {"count": "success", "hang": "running"}
    assert "counted in the task" in api.get(f"{tasks}/count/logs/1").text
    api.close()

    # Airflow tells a collector of its scheduler, its pools and the task that has ended.
    counters, gauges = collector.received()
    assert counters["airflow.scheduler_heartbeat"] > 0
    assert counters["airflow.ti.finish.counting.count.success"] == 1
    assert "airflow.pool.running_slots.gpu" in gauges

    # Nor into MLflow, but with its own, which clients here find by themselves.
    assert httpx.get(f"{ports.mlflow_url}/", timeout=30).status_code == 401
    login = read_login(settings.artifacts)
    assert login is not None
    assert stat.S_IMODE(login_file(settings.artifacts).stat().st_mode) == 0o600
    browser = httpx.get(f"{ports.mlflow_url}/", auth=(login.user, login.password), timeout=30)
    assert browser.status_code == 200
    assert Registry(ports.mlflow_url, settings.artifacts).versions("color") == []
    with pytest.raises(MLflowUnavailable, match="asks for a login: set MLFLOW_TRACKING_USERNAME"):
        Registry(ports.mlflow_url, settings.repo / "elsewhere").versions("color")
    for log in (settings.home / "logs").iterdir():
        assert login.password not in log.read_text()

    # Though parents are killed and a task has started a session of its own, all of it ends.
    state = json.loads((settings.home / "servers.json").read_text())
    for name in ("scheduler", "mlflow"):
        os.kill(state["processes"][name][0], signal.SIGKILL)
    stopped = command_line(settings, ports, "down")
    output, _ = stopped.communicate()
    assert stopped.returncode == 0, output
    assert not marked_processes(settings)
    for port in (ports.airflow, ports.mlflow):
        with socket.socket() as probe:
            assert probe.connect_ex((HOST, port)) != 0
    assert "not running" in status(settings)
