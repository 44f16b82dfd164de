"""Operators that are more than plain tasks: approvals, and a link."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

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

    from ..promotion.moves import Decision


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
    approve, or the challenger is the champion already, it goes on at once without a decision.
    Waiting for a person holds no worker and no slot of a pool; no answer in time counts as a
    rejection.
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
        from ..promotion.approval import body
        from ..promotion.compare import Comparison

        comparison = Comparison.model_validate(self.comparison)
        if comparison.is_champion:
            self.log.info("nothing to approve: %s", "; ".join(comparison.reasons))
            return self._approved(None)
        if not comparison.passes:
            raise AirflowSkipException(f"{comparison.group}: {'; '.join(comparison.reasons)}")
        if comparison.approval_reason is None:
            return self._approved(None)
        self.subject = f"Promote {comparison.group} version {comparison.version}?"
        self.response_timeout = timedelta(hours=comparison.hours)
        self.body = body(
            comparison,
            answer_by=datetime.now(UTC) + self.response_timeout,
            airflow=conf.get("api", "base_url", fallback=""),
        )
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
        return self._approved(decision)

    def _approved(self, decision: Decision | None) -> dict[str, Any]:
        """Return what `promote` takes."""
        return {"comparison": self.comparison, "decision": decision and decision.model_dump()}


class ApproveLabels(ApprovalOperator):
    """Ask a person to approve what would be collected, where `labels.approval` says so.

    Otherwise it goes on at once. Waiting for a person holds no worker; without an answer in time
    nothing is collected.
    """

    template_fields = (*ApprovalOperator.template_fields, "waiting")

    def __init__(self, *, waiting: Any, **kwargs: Any) -> None:
        super().__init__(
            doc_md=type(self).__doc__,
            subject="Collect?",
            defaults=[self.REJECT],
            notifiers=[Waiting()],
            **kwargs,
        )
        self.waiting = waiting
        self.execution_timeout = LIMITS["approve"]  # given above, it would limit the person

    def execute(self, context: Context) -> Any:
        if self.waiting["body"] is None:
            return self.waiting
        self.subject = f"Collect the labels of {self.waiting['summary']}?"
        self.body = self.waiting["body"]
        answer_by = datetime.fromisoformat(self.waiting["answer_by"])
        self.response_timeout = answer_by - datetime.now(UTC)
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        super().execute_complete(context, event)  # skips what follows a rejection
        return self.waiting | {"by": _name(event.get("responded_by_user"))}


def _name(user: Mapping[str, str] | None) -> str | None:
    return (user.get("name") or user.get("id")) if user else None
