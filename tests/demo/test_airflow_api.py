"""The demo's client of Airflow's API, against a small server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from tenacity import nap

from shoetagger.config.settings import Settings
from shoetagger.demo import airflow_api
from shoetagger.demo.airflow_api import Airflow, DemoError, FailedRunError
from shoetagger.ops.environment import Ports

RUN = "/api/v2/dags/train/dagRuns/one"
Answers = dict[str, list[tuple[int, Any]]]


@pytest.fixture
def answers() -> Answers:
    """The answers to each request, one after the other; the last one is given again."""
    return {"POST /auth/token": [(201, {"access_token": "t"})]}


@pytest.fixture
def airflow(answers: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Airflow]:
    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            rest = answers[f"{self.command} {self.path.partition('?')[0]}"]
            status, document = rest.pop(0) if len(rest) > 1 else rest[0]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(document).encode())

        do_GET = do_POST = do_PATCH = answer  # noqa: N815 - names that http.server calls

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setattr(airflow_api, "credentials", lambda _: ("admin", "secret"))
    monkeypatch.setattr(airflow_api.time, "sleep", lambda _: None)
    monkeypatch.setattr(nap.time, "sleep", lambda _: None)
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        settings = Settings.from_environment({"SHOETAGGER_HOME": str(tmp_path)})
        yield Airflow(settings, Ports(server.server_port, 1))
        server.shutdown()
        thread.join()


def task(name: str, state: str, **more: Any) -> dict[str, Any]:
    instance = {"task_id": name, "map_index": -1, "state": state, "try_number": 1}
    return {**instance, "duration": 61.0, **more}


def tasks(*instances: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    return 200, {"task_instances": list(instances)}


def test_a_read_is_repeated_while_airflow_is_busy_and_a_write_is_not(
    airflow: Airflow, answers: Answers
) -> None:
    answers["GET /api/v2/dags/train"] = [(404, {}), (503, {}), (200, {"is_paused": True})]
    answers["PATCH /api/v2/dags/train"] = [(200, {})]
    airflow.activate("train")
    assert len(answers["GET /api/v2/dags/train"]) == 1
    answers["POST /api/v2/dags/train/dagRuns"] = [(503, {}), (200, {"dag_run_id": "one"})]
    with pytest.raises(DemoError, match=r"does not answer at .* \(status 503\)"):
        airflow.trigger("train", {})
    assert airflow.trigger("train", {}) == "one"


def test_a_dag_that_airflow_does_not_know_is_reported_with_its_import_error(
    airflow: Airflow, answers: Answers
) -> None:
    answers["GET /api/v2/dags/train"] = [(404, {})]
    error = {"filename": "train.py", "stack_trace": "NameError: x"}
    answers["GET /api/v2/importErrors"] = [(200, {"import_errors": [error]})]
    with pytest.raises(DemoError, match=r"(?s)does not know the DAG train: train\.py:.NameError"):
        airflow.activate("train", patience=0)


def test_each_change_of_a_task_is_reported_once(airflow: Airflow, answers: Answers) -> None:
    answers[f"GET {RUN}"] = [*[(200, {"state": "running"})] * 3, (200, {"state": "success"})]
    answers[f"GET {RUN}/taskInstances"] = [
        tasks(task("split", "running")),
        tasks(task("split", "running")),
        tasks(task("split", "success"), task("train", "running", map_index=0)),
        tasks(
            task("split", "success"),
            task("train", "success", map_index=0, rendered_map_index="color"),
        ),
    ]
    lines: list[str] = []
    done = airflow.follow("train", "one", lines.append)
    assert [found.name for found in done] == ["split", "train color"]
    assert [line.split(maxsplit=1)[1] for line in lines] == [
        "split: running",
        "split: done (1:01)",
        "train color: done (1:01)",
    ]


def test_a_run_that_fails_names_its_task_and_log(airflow: Airflow, answers: Answers) -> None:
    answers[f"GET {RUN}"] = [(200, {"state": "failed"})]
    answers[f"GET {RUN}/taskInstances"] = [tasks(task("split", "failed"))]
    lines: list[str] = []
    with pytest.raises(FailedRunError, match=r"(?s)train failed.task split: it left no log"):
        airflow.follow("train", "one", lines.append)
    assert "split: FAILED" in lines[0]
    assert lines[1].endswith("task_id=split/attempt=1.log")
