"""Stage `summary`: the figures of all groups together, as a user sees a picture's tags."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from ..config import params as parameters
from ..config.params import Params
from ..config.settings import Settings
from ..learning.dataset.tables import read_evaluated
from ..learning.evaluation import metrics as figures
from ..tracking.run import Tracker
from .command import run
from .mlflow_run import facts


def main(
    judged: Annotated[Path, typer.Argument(help="folder of the answers that evaluate wrote")],
    metrics: Annotated[Path, typer.Option(help="JSON file of the figures to write")],
    summary: Annotated[Path, typer.Option(help="JSON file of the most important ones to write")],
) -> None:
    """Join the groups' answers to each picture and judge them as one."""
    params, settings = parameters.load(Path("params.yaml")), Settings.from_environment()
    tables = [read_evaluated(judged / f"{group}.csv") for group in params.groups]
    document = {part: _report(params, tables, part) for part in ("validation", "crossval")}
    for path, content in ((metrics, document), (summary, figures.summary(document))):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1) + "\n")

    tracker = Tracker(settings.tracking_uri, settings.outbox, settings.artifacts)
    groups = {"groups": ", ".join(params.groups)}
    with tracker.start("summary", tags=facts("all"), params=groups) as tracked:
        for part, judged_part in document.items():
            tracked.log_metrics(figures.flat_report(part, judged_part))
        tracked.log_dict("summary.json", document)
    report = document["validation"]
    if report is not None:
        typer.echo(f"macro F1 {report['macro_f1']} on {report['pictures']} validation pictures")


def _report(params: Params, tables: list[pd.DataFrame], part: str) -> dict[str, Any] | None:
    """Judge the pictures that this part has in every group; None where there are none.

    A positive that moved between the sides moved in its group alone.
    """
    indexed = [table[table["part"] == part].set_index("image_name") for table in tables]
    joined = pd.concat(indexed, axis=1, join="inner")
    if joined.empty:
        return None
    truth, scores, said = (
        joined[[f"{what} {tag}" for tag in params.tags]].to_numpy()
        for what in ("true", "score", "said")
    )
    return figures.report(
        truth.astype("uint8"),
        scores,
        said.astype("uint8"),
        params.tags,
        min_positives=params.evaluate.min_positives,
        bootstrap=params.evaluate.bootstrap,
        seed=params.split.seed,
    )


if __name__ == "__main__":
    run(main)
