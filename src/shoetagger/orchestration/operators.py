"""Operators of the training DAG that are more than plain tasks: an approval, and a link."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import BaseOperatorLink, Param
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowSkipException
from airflow.sdk.execution_time.xcom import XCom

from . import tasks
from .dag_parts import LIMITS
from .notifiers import Waiting

if TYPE_CHECKING:
    from airflow.sdk import Context

    from ..promotion.compare import Comparison


class ReportLink(BaseOperatorLink):
    """A button on a task's page that opens the comparison in MLflow."""

    name = "Comparison"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        comparison = getattr(operator, "comparison", None) or XCom.get_value(
            ti_key=ti_key, key="return_value"
        )
        return (comparison and comparison["report"]) or ""


class Approve(ApprovalOperator):
    """Ask a person to approve where the comparison says so, and return the decision.

    A challenger that did not pass the gate is skipped here, with the reasons. Where nobody has to
    approve, the empty decision is returned at once. Waiting for a person holds no worker and no
    slot of a pool; no answer in time counts as a rejection.
    """

    template_fields = (*ApprovalOperator.template_fields, "comparison")
    operator_extra_links = (ReportLink(),)

    def __init__(self, *, comparison: Any, **kwargs: Any) -> None:
        kwargs.pop("params", None)  # the DAG's form, which the approver must not see
        super().__init__(
            doc_md=type(self).__doc__,
            subject="Promote?",
            map_index_template="{{ task.comparison['group'] }}",
            defaults=[self.REJECT],
            notifiers=[Waiting()],
            params={
                "why": Param(
                    None,
                    type=["null", "string"],
                    title="Why",
                    description="The reason, for the ledger.",
                )
            },
            **kwargs,
        )
        self.comparison = comparison
        self.execution_timeout = LIMITS["approve"]  # given above, it would limit the person

    def execute(self, context: Context) -> Any:
        from ..promotion.compare import Comparison

        comparison = Comparison.model_validate(self.comparison)
        if not comparison.passes:
            raise AirflowSkipException(f"{comparison.group}: {'; '.join(comparison.reasons)}")
        if comparison.approval_reason is None:
            return {}
        self.subject = f"Promote {comparison.group} version {comparison.version}?"
        self.body = comparison.text + _on_the_desk(comparison)
        self.response_timeout = timedelta(hours=comparison.hours)
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        from ..promotion.compare import Comparison
        from ..promotion.moves import Decision, refuse

        comparison = Comparison.model_validate(self.comparison)
        decision = Decision(
            approved=event.get("chosen_options") == [self.APPROVE],
            by=_name(event.get("responded_by_user")) or f"nobody within {comparison.hours:g} hours",
            why=((event.get("params_input") or {}).get("why") or "").strip(),
        )
        if not decision.approved:
            with tasks.installation(unattended=True) as here:
                refuse(here.store, comparison, decision)
        # Airflow refuses answers of another form, and skips what follows a rejection.
        super().execute_complete(context, event)
        return decision.model_dump()


def _on_the_desk(comparison: Comparison) -> str:
    """Return a line that leads whoever approves to the pictures that would change."""
    base = conf.get("api", "base_url", fallback="").rstrip("/")
    page = f"{quote(comparison.group, safe='')}/{quote(comparison.version, safe='')}"
    address = f"{base}/plugin/pictures/pictures/challengers/{page}"
    return f"\n[What it would change, picture by picture, on the desk]({address})\n"


def _name(user: Mapping[str, str] | None) -> str | None:
    return (user.get("name") or user.get("id")) if user else None
