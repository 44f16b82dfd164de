"""Airflow's notifiers that tell the addresses of SHOETAGGER_NOTIFY_URL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk.bases.notifier import BaseNotifier

from ..config.settings import Settings

if TYPE_CHECKING:
    from airflow.sdk import Context


class TaskFailed(BaseNotifier):
    """Tells people that a task has failed, for which there is no further try."""

    def notify(self, context: Context) -> None:
        from ..notification.message import Message
        from ..notification.send import send

        ti: Any = context["ti"]
        error = context.get("exception")
        named = getattr(ti, "rendered_map_index", None)
        task = ti.task_id.rpartition(".")[2]
        where = f"{ti.dag_id}: {task}" + (f" of {named}" if named else "")
        reason = str(error) if error else "the task was ended from outside: see its log"
        message = Message(
            "failed", f"{where} failed", [reason], _address(ti), more={"run_id": ti.run_id}
        )
        send(Settings.from_environment().notify_url, message)


class Waiting(BaseNotifier):
    """Tells people that an approval waits for one of them."""

    def notify(self, context: Context) -> None:
        from airflow.providers.standard.operators.hitl import HITLOperator

        from ..notification.message import Message
        from ..notification.send import send

        task: Any = context["task"]
        until = datetime.now(UTC) + (task.response_timeout or timedelta())
        message = Message(
            "waiting",
            task.subject,
            [f"answer by {until:%Y-%m-%d %H:%M} UTC; no answer in time is a rejection"],
            HITLOperator.generate_link_to_ui_from_context(context=context),
            more={"run_id": context["ti"].run_id},
        )
        send(Settings.from_environment().notify_url, message)


def _address(ti: Any) -> str | None:
    """Return the page of a task; None where only its names are known."""
    try:
        return str(ti.log_url)
    except AttributeError:
        return None
