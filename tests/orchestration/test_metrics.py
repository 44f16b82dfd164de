"""The metrics that tagging tells through Airflow's own, at a local StatsD collector."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
from helpers.airflow_program import run_program
from helpers.installation import ROOT, install, put_pictures
from helpers.statsd import Collector

from shoetagger.config.settings import Settings
from shoetagger.ops.environment import (
    HOST,
    Ports,
    ServersError,
    airflow_environment,
    statsd_address,
)
from shoetagger.orchestration import metrics

# As a worker runs them, one after the other in one process.
TASKS = """
import json, sys
from types import SimpleNamespace
from airflow.sdk.observability import stats
from airflow.sdk.observability.metrics import stats_utils
from shoetagger.orchestration import tasks
stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=True)
run = tasks.begin(SimpleNamespace(run_type="manual"))
found = tasks.find_arrivals(run)
counts = tasks.tag_shard(run, 0, 1)
json.dump({"found": found, "counts": counts}, open(sys.argv[1], "w"))
"""


@pytest.mark.slow
def test_a_night_tells_its_pictures_and_what_waits(tmp_path: Path) -> None:
    settings = install(tmp_path)
    put_pictures(settings, 20)
    (settings.inbox / "broken.jpg").write_bytes(b"no picture")
    with Collector() as collector:
        switched_on = {
            "AIRFLOW__METRICS__STATSD_ON": "True",
            "AIRFLOW__METRICS__STATSD_HOST": HOST,
            "AIRFLOW__METRICS__STATSD_PORT": str(collector.port),
        }
        outcome, _ = run_program(TASKS, settings, cwd=tmp_path, **switched_on)
        time.sleep(0.5)  # for what is still in the socket
        counters, gauges = collector.received()
    assert outcome["found"]["new"] == 21
    assert outcome["counts"]["tagged"] == 20
    told = {name: n for name, n in counters.items() if name.startswith("airflow.shoetagger.")}
    assert told == {
        "airflow.shoetagger.pictures": 21,
        "airflow.shoetagger.tagged": 20,
        "airflow.shoetagger.rejected": 1,
    }
    assert gauges["airflow.shoetagger.waiting"] == [21.0, 0.0]
    before, after = gauges["airflow.shoetagger.oldest_waiting_seconds"]
    assert 0 < before < 60
    assert after == 0


def test_the_dashboard_shows_what_is_sent_and_nothing_else() -> None:
    text = (ROOT / "deploy" / "grafana-dashboard.json").read_text()
    panels = json.loads(text)["panels"]
    shown = {
        name
        for panel in panels
        for target in panel["targets"]
        for name in re.findall(r"\bairflow_(shoetagger_\w+)", target["expr"])
    }
    counts = ("tagged", "rejected", "retagged", "deferred")
    sent = {metrics.PICTURES, metrics.WAITING, metrics.OLDEST_WAITING}
    sent |= {f"shoetagger.{count}" for count in counts}
    # As Prometheus's exporter for StatsD writes them.
    assert shown == {name.replace(".", "_") for name in sent}


def test_one_variable_switches_them_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings.from_environment(
        {"SHOETAGGER_REPO": str(ROOT), "SHOETAGGER_HOME": str(tmp_path)}
    )
    assert not any("STATSD" in name for name in airflow_environment(settings, Ports()))
    monkeypatch.setenv("SHOETAGGER_STATSD", "statsd.example:8125")
    environment = airflow_environment(settings, Ports())
    assert environment["AIRFLOW__METRICS__STATSD_ON"] == "True"
    assert environment["AIRFLOW__METRICS__STATSD_HOST"] == "statsd.example"
    assert environment["AIRFLOW__METRICS__STATSD_PORT"] == "8125"


@pytest.mark.parametrize("address", ["statsd.example", "8125", "host:port"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ServersError, match=r"SHOETAGGER_STATSD=.* is no address: write host:port"):
        statsd_address({"SHOETAGGER_STATSD": address})
