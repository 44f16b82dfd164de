"""Stage `summary`: metrics over all groups, as a user sees a picture's tags."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from ..config import params as parameters
from ..config.params import Params
from ..config.settings import Settings
from ..learning.dataset.tables import read_predictions
from ..learning.evaluation.documents import flat_report, macro_f1_in_words, write_metrics
from ..learning.evaluation.metrics import report
from .command import run
from .mlflow_run import start_summary


def main(
    predictions: Annotated[Path, typer.Argument(help="folder of the tables that evaluate wrote")],
    metrics: Annotated[Path, typer.Option(help="JSON file of all metrics to write")],
    summary: Annotated[Path, typer.Option(help="JSON file of the main metrics to write")],
) -> None:
    """Join the groups' predictions per picture and evaluate them as one."""
    params, settings = parameters.load(Path("params.yaml")), Settings.from_environment()
    tables = [read_predictions(predictions / f"{group}.csv") for group in params.groups]
    document = {part: _report(params, tables, part) for part in ("validation", "crossval")}
    write_metrics(document, metrics, summary)

    with start_summary(settings, params) as tracked:
        for part, part_report in document.items():
            tracked.log_metrics(flat_report(part, part_report))
        tracked.log_dict("summary.json", document)
    validation = document["validation"]
    if validation is not None:
        pictures = validation["pictures"]
        found = macro_f1_in_words(validation)
        typer.echo(f"macro F1 {found} on {pictures} validation pictures")


def _report(params: Params, tables: list[pd.DataFrame], part: str) -> dict[str, Any] | None:
    """Return the metrics of the pictures that this part has in every group; None without any.

    A positive that was moved to the other side was moved in its group alone.
    """
    keys = ["repeat", "image_name"]
    indexed = [table[table["part"] == part].set_index(keys) for table in tables]
    joined = pd.concat(indexed, axis=1, join="inner").sort_index()
    if joined.empty:
        return None
    repeats = joined.index.get_level_values("repeat").nunique()
    truth, scores, predicted = (
        joined[[f"{what} {tag}" for tag in params.tags]]
        .to_numpy()
        .reshape(repeats, -1, len(params.tags))
        for what in ("true", "score", "predicted")
    )
    return report(
        truth[0].astype("uint8"),
        scores,
        predicted.astype("uint8"),
        params.tags,
        min_positives=params.evaluate.min_positives,
        bootstrap=params.evaluate.bootstrap,
        seed=params.split.seed,
    )


if __name__ == "__main__":
    run(main)
