"""### Tag new images

Every night, and whenever a model was promoted: what is new in the inbox is tagged with the live
version of every group, pictures that a live version has not seen are tagged again by it, and the
tables and pages that changed are published. A file that cannot be tagged is rejected with its
reason and stops nothing. Running it again changes nothing.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Asset, AssetOrTimeSchedule, CronTriggerTimetable, dag, task

from shoetagger.params import load
from shoetagger.settings import Settings

CRON = load(Settings.from_environment().params_file).tag.schedule
CHAMPIONS = Asset("shoetagger-champions", uri="shoetagger://champions")
# Without a start date and with a slot missed before the DAG was first seen left alone.
NIGHTLY = CronTriggerTimetable(CRON, timezone="UTC", run_immediately=timedelta(0))


@dag(
    schedule=AssetOrTimeSchedule(timetable=NIGHTLY, assets=[CHAMPIONS]),
    max_active_runs=1,
    doc_md=__doc__,
    tags=["shoetagger"],
    default_args={"retries": 2, "retry_delay": timedelta(seconds=20)},
)
def tag_new_images() -> None:
    @task
    def begin(dag_run: Any) -> dict[str, Any]:
        from shoetagger import tasks

        return tasks.begin(dag_run.run_type)

    @task
    def find_arrivals(run: dict[str, Any]) -> dict[str, int]:
        from shoetagger import tasks

        return tasks.find_arrivals(run)

    @task
    def shards(run: dict[str, Any]) -> list[dict[str, int]]:
        from shoetagger import tasks

        return tasks.shards(run)

    @task(
        pool="gpu", map_index_template="{{ task.op_kwargs['shard'] }} of {{ task.op_kwargs['of'] }}"
    )
    def tag_shard(run: dict[str, Any], shard: int, of: int) -> dict[str, int]:
        from shoetagger import tasks

        return tasks.tag_shard(run, shard, of)

    @task(trigger_rule="all_done")
    def publish() -> dict[str, int]:
        from shoetagger import tasks

        return tasks.publish_changes()

    @task(trigger_rule="all_done", retries=0)
    def finish(run: Any, found: Any, shards: Any, counted: Any, published: Any) -> dict[str, Any]:
        from shoetagger import tasks

        return tasks.finish(run, found, shards, counted or [], published)

    run = begin()
    found = find_arrivals(run)
    parts = shards(run)
    counted = tag_shard.partial(run=run).expand_kwargs(parts)
    published = publish()
    found >> parts
    counted >> published
    finish(run, found, parts, counted, published)


tag_new_images()
