"""### Tag new images

Every night, and after every promotion: new files in the inbox are tagged with the live version of
every group, pictures that a live version has not tagged yet are tagged again by it, and the tables
and pages that changed are published. A file that cannot be tagged is rejected with its
reason and stops nothing. Running it again changes nothing.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import AssetOrTimeSchedule, CronTriggerTimetable, dag

from shoetagger.orchestration import dag_parts, tasks
from shoetagger.orchestration.dag_parts import step

TAG = dag_parts.read_params().tag
# A slot that was missed before this DAG was first seen is left alone.
NIGHTLY = CronTriggerTimetable(TAG.schedule, timezone="UTC", run_immediately=timedelta(0))


@dag(
    schedule=AssetOrTimeSchedule(timetable=NIGHTLY, assets=[dag_parts.CHAMPIONS]),
    max_active_runs=1,
    doc_md=__doc__,
    tags=dag_parts.TAGS,
    default_args=dag_parts.RETRIED | dag_parts.TAGGING_FIRST,
)
def tag_new_images() -> None:
    tag_shard = step(
        tasks.tag_shard,
        **dag_parts.on_gpu(),
        map_index_template="{{ task.op_kwargs['shard'] + 1 }} of {{ task.op_kwargs['of'] }}",
        doc_md=tasks.tag_shard.__doc__,  # Airflow takes it by itself only from unmapped tasks
        execution_timeout=timedelta(minutes=TAG.budget_minutes) + dag_parts.AFTER_BUDGET,
    )
    run = step(tasks.begin)()
    found = step(tasks.find_arrivals)(run)
    shards = step(tasks.shards)(run)
    counted = tag_shard.partial(run=run).expand_kwargs(shards)
    # A shard that failed or had nothing to do does not prevent publishing. `finish` is the last
    # task, so the run's state is its state: failed where any part failed.
    published = step(tasks.publish, trigger_rule="all_done", outlets=[dag_parts.PUBLISHED])(run)
    finish = step(tasks.finish, trigger_rule="all_done", retries=0)
    finish(run, found, shards, counted, published)
    found >> shards
    counted >> published


tag_new_images()
