"""### Train the tag models

One model for each group of tags, from one git commit of this project. DVC runs only what changed.
Every group registers its model as `challenger` and compares it with the live `champion` on the same
pictures. What passes, and is approved where `promote.approval` asks for it, becomes champion and
wakes `tag_new_images`; what does not ends as *skipped*, with the reasons in the log of `approve`.

**groups**: which groups to train; none chosen means all.
**revision**: the commit to train from. Uncommitted changes are refused by name.
**overrides**: parameters for this run alone, one a line, such as `train.head_l2=0.001`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Asset, Param, dag, task, task_group

from shoetagger.config.params import load
from shoetagger.config.settings import Settings
from shoetagger.orchestration import tasks
from shoetagger.orchestration.operators import Approve, ReportLink

GROUPS = list(load(Settings.from_environment().params_file).groups)
OPTIONAL_LIST: dict[str, Any] = {"type": ["array", "null"], "items": {"type": "string"}}
step: Any = task  # its types do not know that what one task gives goes into the next
CHAMPIONS = Asset("shoetagger-champions", uri="shoetagger://champions")
HOURS = {"execution_timeout": timedelta(hours=6)}


@dag(
    schedule=None,
    doc_md=__doc__,
    tags=["shoetagger"],
    default_args={"retries": 2, "retry_delay": timedelta(seconds=20)},
    params={
        "groups": Param(GROUPS, examples=GROUPS, **OPTIONAL_LIST),
        "revision": Param("HEAD", type="string", minLength=1),
        "overrides": Param([], **OPTIONAL_LIST),
    },
)
def train_tag_models() -> None:
    run_stage = step(**HOURS)(tasks.run_stage)
    plan = step(**HOURS)(tasks.checkout)()
    groups = step(tasks.groups)(plan)
    split = run_stage.override(task_id="split")(plan, "split")
    features = run_stage.override(task_id="features", pool="gpu")(plan, "features")

    @task_group
    def model(plan: Any, group: str) -> None:
        named: dict[str, Any] = {"map_index_template": "{{ task.op_kwargs['group'] }}"}
        on_gpu = run_stage.override(pool="gpu", **named)
        train = on_gpu.override(task_id="train")(plan, "train", group=group)
        crossval = on_gpu.override(task_id="crossval")(plan, "crossval", group=group)
        evaluate = on_gpu.override(task_id="evaluate")(plan, "evaluate", group=group)
        challenger = step(**named)(tasks.register)(plan, group=group)
        compare = step(pool="gpu", **HOURS, **named)(tasks.compare)
        comparison = compare(plan, group=group, challenger=challenger)
        comparison.operator.operator_extra_links = (ReportLink(),)
        decision = Approve(task_id="approve", comparison=comparison).output
        promote = step(outlets=[CHAMPIONS], **named)(tasks.promote)
        promote(group=group, comparison=comparison, decision=decision)
        [train, crossval] >> evaluate >> challenger

    groups >> split >> features >> model.partial(plan=plan).expand(group=groups)


train_tag_models()
