"""### Train the tag models

One model for each group of tags, from one git commit of this project. DVC runs only what changed;
the rest is restored from its cache. Every group registers its model as `challenger` and compares it
with the live `champion` on the same validation pictures. What passes becomes champion, and wakes
`tag_new_images`; what does not ends as *skipped*, with the reasons in its log.

**groups**: which groups to train; none chosen means all.
**revision**: the commit to train from. Uncommitted changes are refused by name.
**overrides**: parameters for this run alone, one a line, such as `train.epochs=5`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Asset, Param, dag, task, task_group

from shoetagger.params import load
from shoetagger.settings import Settings

GROUPS = list(load(Settings.from_environment().params_file).groups)
CHAMPIONS = Asset("shoetagger-champions", uri="shoetagger://champions")
NAMED = "{{ task.op_kwargs['group'] }}"


@dag(
    schedule=None,
    doc_md=__doc__,
    tags=["shoetagger"],
    default_args={"retries": 2, "retry_delay": timedelta(seconds=20)},
    params={
        "groups": Param([], type="array", items={"type": "string"}, examples=GROUPS),
        "revision": Param("HEAD", type="string", minLength=1),
        "overrides": Param([], type="array", items={"type": "string"}),
    },
)
def train_tag_models() -> None:
    @task(execution_timeout=timedelta(minutes=30))
    def checkout(params: dict[str, Any]) -> dict[str, Any]:
        from shoetagger import tasks

        return tasks.checkout(params["revision"], params["overrides"])

    @task
    def groups(plan: dict[str, Any], params: dict[str, Any]) -> list[str]:
        from shoetagger import tasks

        return tasks.groups(plan, params["groups"])

    @task(execution_timeout=timedelta(hours=2))
    def run_stage(plan: dict[str, Any], stage: str) -> str:
        from shoetagger import tasks

        return tasks.run_stage(plan, stage)

    @task(pool="gpu", execution_timeout=timedelta(hours=6), map_index_template=NAMED)
    def run_group_stage(plan: dict[str, Any], stage: str, group: str) -> str:
        from shoetagger import tasks

        return tasks.run_stage(plan, f"{stage}@{group}")

    @task(map_index_template=NAMED)
    def register(plan: dict[str, Any], group: str) -> dict[str, str]:
        from shoetagger import tasks

        return tasks.register(plan, group)

    @task(map_index_template=NAMED, execution_timeout=timedelta(hours=1))
    def compare(plan: dict[str, Any], challenger: dict[str, str], group: str) -> dict[str, Any]:
        from shoetagger import tasks

        return tasks.compare(plan, challenger)

    @task(map_index_template=NAMED, outlets=[CHAMPIONS])
    def promote(plan: dict[str, Any], comparison: dict[str, Any], group: str, run_id: str) -> Any:
        from shoetagger import tasks

        return tasks.promote(plan, comparison, by=f"train_tag_models {run_id}")

    @task_group
    def model(plan: dict[str, Any], group: str) -> None:
        train = run_group_stage.override(task_id="train")(plan, "train", group)
        crossval = run_group_stage.override(task_id="crossval")(plan, "crossval", group)
        evaluate = run_group_stage.override(task_id="evaluate")(plan, "evaluate", group)
        challenger = register(plan, group)
        [train, crossval] >> evaluate >> challenger
        promote(plan, compare(plan, challenger, group), group)

    plan = checkout()
    split = run_stage.override(task_id="split")(plan, "split")
    features = run_stage.override(task_id="features", pool="gpu")(plan, "features")
    models = model.partial(plan=plan).expand(group=groups(plan))
    split >> features >> models


train_tag_models()
