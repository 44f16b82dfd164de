"""### Train the tag models

One model per group of tags, from one git commit; DVC runs only what changed. Each group registers
its model as `challenger` and compares it with the live `champion` on the same pictures. If it
passes, and is approved where `promote.approval` asks for that, it becomes champion and wakes
`tag_new_images`; otherwise `approve` is *skipped*, with the reasons in its log.

- `groups`: which groups to train; none chosen means all that the commit has.
- `revision`: the commit to train from, if `collect_labels` has not started the run with its own.
- `overrides`: parameters for this run alone, one per line, such as `train.head_l2=0.001`.
"""

from __future__ import annotations

from airflow.sdk import dag, task_group

from shoetagger.orchestration import dag_parts, forms, tasks
from shoetagger.orchestration.operators import Approve, ReportLink


@dag(
    schedule=[dag_parts.LABELS],
    doc_md=__doc__,
    tags=dag_parts.TAGS,
    default_args=dag_parts.RETRIED | dag_parts.NOTIFIED,
    params=forms.training(list(dag_parts.read_params().groups)),
)
def train_tag_models() -> None:
    on_gpu = dag_parts.on_gpu()
    run_stage = dag_parts.step(tasks.run_stage)
    training = dag_parts.step(tasks.checkout)()
    split = run_stage.override(task_id="split")(training, "split")
    features = run_stage.override(task_id="features", **on_gpu)(split, "features")
    groups = dag_parts.step(tasks.groups)(features)

    @task_group
    def model(training: object) -> None:
        of_group = run_stage.override(**on_gpu, **dag_parts.NAMED)
        trained = of_group.override(task_id="train")(training=training, stage="train")
        crossval = of_group.override(task_id="crossval")(training=training, stage="crossval")
        evaluated = of_group.override(task_id="evaluate")(training=trained, stage="evaluate")
        crossval >> evaluated
        challenger = dag_parts.step(tasks.register, **dag_parts.NAMED)(training=evaluated)
        compare = dag_parts.step(tasks.compare, **on_gpu, **dag_parts.NAMED)
        comparison = compare(training=challenger)
        comparison.operator.operator_extra_links = (ReportLink(),)
        approved = Approve(task_id="approve", comparison=comparison).output
        promote = dag_parts.step(
            tasks.promote, outlets=[dag_parts.PROMOTED], map_index_template=dag_parts.PROMOTED_GROUP
        )
        promote(approved=approved)

    model.expand(training=groups)


train_tag_models()
