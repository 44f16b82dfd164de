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

from shoetagger.config.params import load
from shoetagger.config.settings import Settings
from shoetagger.orchestration import tasks

TAG = load(Settings.from_environment().params_file).tag
step: Any = task  # its types do not know that what one task gives goes into the next
CHAMPIONS = Asset("shoetagger-champions", uri="shoetagger://champions")
# A slot that was missed before this DAG was first seen is left alone.
NIGHTLY = CronTriggerTimetable(TAG.schedule, timezone="UTC", run_immediately=timedelta(0))


@dag(
    schedule=AssetOrTimeSchedule(timetable=NIGHTLY, assets=[CHAMPIONS]),
    max_active_runs=1,
    doc_md=__doc__,
    tags=["shoetagger"],
    default_args={"retries": 2, "retry_delay": timedelta(seconds=20)},
)
def tag_new_images() -> None:
    tag_shard = step(
        pool="gpu",
        map_index_template="{{ task.op_kwargs['shard'] + 1 }} of {{ task.op_kwargs['of'] }}",
        doc_md=tasks.tag_shard.__doc__,  # which Airflow takes from tasks that are not mapped
        # The budget ends a shard by itself; this ends one that hangs.
        execution_timeout=timedelta(minutes=TAG.budget_minutes + 60),
    )(tasks.tag_shard)
    run = step(tasks.begin)()
    found = step(tasks.find_arrivals)(run)
    shards = step(tasks.shards)(run)
    counted = tag_shard.partial(run=run).expand_kwargs(shards)
    # A shard that failed or had nothing to do keeps nothing from being published; `finish` is the
    # last task, so the run is what it says: failed, where a part of it did.
    published = step(trigger_rule="all_done")(tasks.publish)()
    finish = step(trigger_rule="all_done", retries=0)(tasks.finish)
    finish(run, found, shards, counted, published)
    found >> shards
    counted >> published


tag_new_images()
