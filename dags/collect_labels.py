"""### Collect labels

Brings what people corrected and confirmed on the picture desk into the label sheet. Pictures that
people checked in every group become rows, in a commit on the branch `labels.branch`; the data goes
to DVC's remote. Then `train_tag_models` trains from that commit.

It runs every day, and waits until `labels.batch` pictures are checked. Trigger it by hand to take
what is there. With `labels.approval: always` a person is asked first, who sees the pictures and
what to look at.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import CronTriggerTimetable, dag

from shoetagger.orchestration import dag_parts, tasks
from shoetagger.orchestration.operators import ApproveLabels

LABELS = dag_parts.read_params().labels


@dag(
    schedule=CronTriggerTimetable(LABELS.schedule, timezone="UTC", run_immediately=timedelta(0)),
    max_active_runs=1,
    doc_md=__doc__,
    tags=dag_parts.TAGS,
    default_args=dag_parts.RETRIED | dag_parts.NOTIFIED,
)
def collect_labels() -> None:
    waiting = dag_parts.step(tasks.look_at_labels)()
    approved = ApproveLabels(task_id="approve", waiting=waiting).output
    dag_parts.step(tasks.collect, outlets=[dag_parts.COLLECTED])(approved=approved)


collect_labels()
