"""A command, a task or a night parses params.yaml once and opens one store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.installation import ROOT, install, put_pictures
from typer.testing import CliRunner

from shoetagger.cli.app import app
from shoetagger.orchestration import dag_parts, tasks
from shoetagger.store.store import Store


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = install(tmp_path)
    put_pictures(found, 2)
    for name, value in {
        "SHOETAGGER_REPO": ROOT,
        "SHOETAGGER_HOME": found.home,
        "SHOETAGGER_INBOX": found.inbox,
        "SHOETAGGER_STORE_URL": found.store_url,
        "SHOETAGGER_DEVICE": "cpu",
        "MLFLOW_TRACKING_URI": found.tracking_uri,
        "AIRFLOW_HOME": tmp_path / "airflow",
    }.items():
        monkeypatch.setenv(name, str(value))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count how often params.yaml and a store are opened."""
    counts: Counter[str] = Counter()
    open_file, open_store = Path.open, Store.__init__

    def counting_file(self: Path, *arguments: Any, **options: Any) -> Any:
        counts["params.yaml"] += self.name == "params.yaml"
        return open_file(self, *arguments, **options)

    def counting_store(self: Store, url: str) -> None:
        counts["store"] += 1
        open_store(self, url)

    monkeypatch.setattr(Path, "open", counting_file)
    monkeypatch.setattr(Store, "__init__", counting_store)
    return counts


def call(command: str) -> None:
    assert CliRunner().invoke(app, [command], catch_exceptions=False).exit_code == 0


@pytest.mark.slow
def test_a_night_is_opened_once(opened: Counter[str]) -> None:
    call("night")
    assert opened == {"params.yaml": 1, "store": 1}


@pytest.mark.parametrize("command", ["status", "history", "retry"])
def test_a_command_is_opened_once(opened: Counter[str], command: str) -> None:
    call(command)
    assert opened == {"params.yaml": 1, "store": 1}


@pytest.mark.slow
def test_each_task_of_a_night_is_opened_at_most_once(opened: Counter[str]) -> None:
    def once(task: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        opened.clear()
        result = task(*arguments, **options)
        assert opened["params.yaml"] == 1, task.__name__
        assert opened["store"] == 1, task.__name__
        return result

    run = once(tasks.begin, SimpleNamespace(run_type="scheduled"))
    found = once(tasks.find_arrivals, run)
    shards = once(tasks.shards, run)
    parts = [once(tasks.tag_shard, run, **shard) for shard in shards]
    announced: dict[Any, list[dict[str, Any]]] = {}
    outlet = SimpleNamespace(add=lambda asset, extra: announced.setdefault(asset, []).append(extra))
    published = once(tasks.publish, outlet_events={dag_parts.PUBLISHED: outlet})
    assert announced == {dag_parts.TABLES: [{"days": [f"{datetime.now(UTC):%Y-%m-%d}"]}]}
    once(tasks.publish, outlet_events={})  # nothing changed, so there is nothing to announce
    summary = once(tasks.finish, run, found, shards, parts, published)
    assert summary["counts"]["tagged"] == 2
