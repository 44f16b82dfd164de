"""### Train the tag models

One model per group of tags, from one git commit; DVC runs only what changed. Each group registers
its model as `challenger` and compares it with the live `champion` on the same pictures. If it
passes, and is approved where `promote.approval` asks for that, it becomes champion and wakes
`tag_new_images`; otherwise `approve` is *skipped*, with the reasons in its log.

**groups**: which groups to train; none chosen means all that the commit has.
**revision**: the commit to train from, if `collect_labels` has not started the run with its own.
**overrides**: parameters for this run alone, one per line, such as `train.head_l2=0.001`.
"""

from __future__ import annotations

from airflow.sdk import Param, dag, task_group

from shoetagger.orchestration import dag_parts, tasks
from shoetagger.orchestration.operators import Approve, ReportLink

GROUPS = list(dag_parts.read_params().groups)


@dag(
    schedule=[dag_parts.LABELS],
    doc_md=__doc__,
    tags=dag_parts.TAGS,
    default_args=dag_parts.RETRIED | dag_parts.TOLD,
    params={
        "groups": Param([], examples=GROUPS, **dag_parts.TEXTS),
        "revision": Param("HEAD", type="string", minLength=1),
        "overrides": Param([], **dag_parts.TEXTS),
    },
)
def train_tag_models() -> None:
    run_stage = dag_parts.step(tasks.run_stage)
    plan = dag_parts.step(tasks.checkout)()
    groups = dag_parts.step(tasks.groups)(plan)
    split = run_stage.override(task_id="split")(plan, "split")
    features = run_stage.override(task_id="features", pool="gpu")(plan, "features")

    @task_group
    def model(plan: object, group: str) -> None:
        on_gpu = run_stage.override(pool="gpu", **dag_parts.NAMED)
        train = on_gpu.override(task_id="train")(plan, "train", group=group)
        crossval = on_gpu.override(task_id="crossval")(plan, "crossval", group=group)
        evaluate = on_gpu.override(task_id="evaluate")(plan, "evaluate", group=group)
        challenger = dag_parts.step(tasks.register, **dag_parts.NAMED)(plan, group=group)
        compare = dag_parts.step(tasks.compare, pool="gpu", **dag_parts.NAMED)
        comparison = compare(plan, group=group, challenger=challenger)
        comparison.operator.operator_extra_links = (ReportLink(),)
        decision = Approve(task_id="approve", comparison=comparison).output
        promote = dag_parts.step(tasks.promote, outlets=[dag_parts.CHAMPIONS], **dag_parts.NAMED)
        promote(group=group, comparison=comparison, decision=decision)
        [train, crossval] >> evaluate >> challenger

    groups >> split >> features >> model.partial(plan=plan).expand(group=groups)


train_tag_models()
