"""### Roll a tag model back

Makes an earlier version of one group live again, in MLflow and in the store together. The tags that
it gave before are current at once: no model runs. Pictures that it has not tagged yet are tagged
the next night.

- `group`: the group to move back.
- `version`: the version to go back to; empty means the one before the present.
- `why`: the reason, for the ledger.
"""

from __future__ import annotations

from airflow.sdk import dag

from shoetagger.orchestration import forms, tasks
from shoetagger.orchestration.dag_parts import PUBLISHED, TAGS, read_params, step


@dag(
    schedule=None,
    doc_md=__doc__,
    tags=TAGS,
    params=forms.rollback(list(read_params().groups)),
)
def roll_back_tag_model() -> None:
    step(tasks.roll_back)() >> step(tasks.publish, outlets=[PUBLISHED])()


roll_back_tag_model()
