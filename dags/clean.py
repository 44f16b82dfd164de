"""### Clean

Once a week: deletes what `keep.*` of params.yaml does not keep, of predictions, runs, bundles,
checkouts, DVC's cache, Airflow's rows and logs. What a night or a training run uses at the time is
left alone. `shoetagger clean --dry-run` says what it would free.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import CronTriggerTimetable, dag

from shoetagger.orchestration import dag_parts, tasks

KEEP = dag_parts.read_params().keep


@dag(
    schedule=CronTriggerTimetable(KEEP.schedule, timezone="UTC", run_immediately=timedelta(0)),
    max_active_runs=1,
    doc_md=__doc__,
    tags=dag_parts.TAGS,
    default_args=dag_parts.RETRIED | dag_parts.NOTIFIED,
)
def clean() -> None:
    dag_parts.step(tasks.clean)()


clean()
