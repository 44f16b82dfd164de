"""What was begun goes on while params.yaml has a fault; the gate waits until it is corrected."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.installation import install, make_live

from shoetagger.config.last_good import load_or_last_good
from shoetagger.orchestration import tasks
from shoetagger.promotion.compare import Comparison
from shoetagger.store.store import Store


@pytest.mark.slow
def test_an_approved_version_is_promoted_while_the_gate_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = install(tmp_path)
    for name, value in settings.as_environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow"))
    from airflow.sdk.exceptions import AirflowFailException

    from shoetagger.orchestration import dag_parts

    digest = make_live(settings, "color", head_seed=9)  # as a first try of the task left it
    load_or_last_good(settings)
    settings.params_file.write_text("tag: [")
    comparison: Any = Comparison.model_construct(
        group="color", challenger=digest, version="2", champion=None, champion_version=None,
        passes=True, reasons=(), approval_reason=None, hours=1.0, metrics={}, data_revision="",
        mlflow_run=None, text="", report=None,
    ).model_dump(mode="json")  # fmt: skip
    dag_run = SimpleNamespace(triggering_user_name="ann", dag_id="train", run_id="1")
    events: Any = {dag_parts.PROMOTED: SimpleNamespace(add=lambda *_, **__: None)}
    tasks.promote({"comparison": comparison, "decision": None}, dag_run, events)
    with Store(settings.store_url) as store:
        assert store.ledger.live()["color"] == digest
    with pytest.raises(AirflowFailException, match=r"params\.yaml is not valid YAML"):
        tasks.compare(
            {"plan": {"commit": "0" * 40}, "group": "color", "challenger": {"digest": digest}}
        )
