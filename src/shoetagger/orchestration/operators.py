"""What the training DAG takes of Airflow beyond plain tasks: an approval, and a link."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import BaseOperatorLink, Param
from airflow.sdk.exceptions import AirflowSkipException
from airflow.sdk.execution_time.xcom import XCom

from . import tasks

if TYPE_CHECKING:
    from airflow.sdk import Context


class ReportLink(BaseOperatorLink):
    """A button on a task's page that opens the comparison in MLflow."""

    name = "Comparison"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        told = getattr(operator, "comparison", None) or XCom.get_value(
            ti_key=ti_key, key="return_value"
        )
        return (told and told["report"]) or ""


class Approve(ApprovalOperator):
    """Ask a person where the comparison says so, and hand on what they decided.

    A challenger that did not pass the gate ends its path here as skipped, with the reasons. Where
    nobody has to be asked, the empty decision is handed on at once. While somebody is asked, no
    worker and no slot of a pool is held; without an answer in time it is as if they had rejected.
    """

    template_fields = (*ApprovalOperator.template_fields, "comparison")
    operator_extra_links = (ReportLink(),)

    def __init__(self, *, comparison: Any, **kwargs: Any) -> None:
        kwargs.pop("params", None)  # the DAG's form, which is not for whoever approves
        super().__init__(
            doc_md=type(self).__doc__,
            subject="Promote?",
            map_index_template="{{ task.comparison['group'] }}",
            defaults=[self.REJECT],
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

    def execute(self, context: Context) -> Any:
        from ..promotion.compare import Comparison

        judged = Comparison.from_dict(self.comparison)
        if not judged.passes:
            raise AirflowSkipException(f"{judged.group}: {'; '.join(judged.reasons)}")
        if judged.asks is None:
            return {}
        self.subject = f"Promote {judged.group} version {judged.version}?"
        self.body = judged.text
        self.response_timeout = timedelta(hours=judged.hours)
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        from ..promotion import compare
        from ..promotion.moves import Decision, refuse

        judged = compare.Comparison.from_dict(self.comparison)
        decision = Decision(
            approved=event.get("chosen_options") == [self.APPROVE],
            by=_name(event.get("responded_by_user")) or f"nobody within {judged.hours:g} hours",
            why=((event.get("params_input") or {}).get("why") or "").strip(),
        )
        if not decision.approved:
            with tasks.final() as settings:
                refuse(settings, judged, decision)
        # It refuses answers of another form, and skips what follows a rejection.
        super().execute_complete(context, event)
        return decision.as_dict()


def _name(user: Mapping[str, str] | None) -> str | None:
    return (user.get("name") or user.get("id")) if user else None
