"""Stage `evaluate@group`: thresholds, the bundle, figures of merit and plots."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from matplotlib.figure import Figure

from ..config import params as parameters
from ..config.recipe import Evaluate
from ..config.settings import Settings
from ..inference.bundle import Bundle, save_bundle
from ..inference.decision import UNCALIBRATED, predict, tags_of
from ..learning.dataset.tables import read_scores, write_evaluated
from ..learning.evaluation import metrics as figures
from ..learning.evaluation import plots
from ..learning.evaluation.calibration import calibrate
from ..learning.training.fit import scores
from ..network.backbone import TagModel
from ..network.devices import pick_device
from ..network.digests import file_sha256, prefix_digests
from ..network.weights import load_weights, pretrained_of
from .command import run
from .group import Features, Group, GroupData, Images, SplitTable, open_group_data
from .mlflow_run import continue_run


@dataclass(frozen=True)
class Judged:
    """Pictures with what is true, what was scored and what was decided, each (N, tags).

    `rows` (N,) are theirs in the group's table.
    """

    rows: np.ndarray
    truth: np.ndarray
    scores: np.ndarray
    decisions: np.ndarray

    def report(self, tags: tuple[str, ...], rule: Evaluate, seed: int) -> dict[str, Any]:
        """Return the figures, and beside them what the same scores give with thresholds of 0.5."""
        measurable = figures.measurable_tags(self.truth, rule.min_positives)
        halves = predict(self.scores, (UNCALIBRATED,) * len(tags))
        at_half = figures.macro_f1(self.truth, halves, measurable)
        report = figures.report(
            self.truth,
            self.scores,
            self.decisions,
            tags,
            min_positives=rule.min_positives,
            bootstrap=rule.bootstrap,
            seed=seed,
        )
        told = figures.NOT_MEASURABLE if at_half is None else round(at_half, 4)
        return report | {"macro_f1_at_half": told}

    def table(self, pictures: pd.Series[str], part: str, tags: tuple[str, ...]) -> pd.DataFrame:
        """Return a row a picture: image_name, part, then true, score and said of each tag."""
        names = pictures.iloc[self.rows].to_numpy()
        columns = {
            f"{what} {tag}": values[:, i]
            for what, values in (
                ("true", self.truth),
                ("score", self.scores),
                ("said", self.decisions),
            )
            for i, tag in enumerate(tags)
        }
        return pd.DataFrame({"image_name": names, "part": part, **columns})


def main(
    group: Group,
    split: SplitTable,
    images: Images,
    features: Features,
    weights: Annotated[Path, typer.Option(help="weights that the stage train wrote")],
    crossval: Annotated[Path, typer.Option(help="scores that the stage crossval wrote")],
    bundle: Annotated[Path, typer.Option(help="bundle.json to write")],
    judged: Annotated[Path, typer.Option(help="CSV file of every answer to write")],
    metrics: Annotated[Path, typer.Option(help="JSON file of the figures to write")],
    summary: Annotated[Path, typer.Option(help="JSON file of the most important ones to write")],
    tags_plot: Annotated[Path, typer.Option(help="CSV file of the figures a tag to write")],
    plots_dir: Annotated[Path, typer.Option("--plots", help="folder of the plots to write")],
) -> None:
    """Calibrate thresholds on the out-of-fold scores, then judge by the validation side."""
    params, settings = parameters.load(Path("params.yaml")), Settings.from_environment()
    device = pick_device(settings.device)
    data = open_group_data(params, group, split, images, features, device)
    model, _ = data.new_model()
    load_weights(model, weights)

    out_of_fold = _read_crossval(crossval, data)
    made = _bundle(data, model, weights, out_of_fold)
    save_bundle(made, bundle)

    validation = _judge_validation(data, model, made)
    judged_out_of_fold = _judge_out_of_fold(data, out_of_fold)
    _write_judged(data, validation, judged_out_of_fold, judged)
    document = _document(data, made, validation, judged_out_of_fold)
    for path, content in ((metrics, document), (summary, figures.summary(document))):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1) + "\n")
    _write_tags(document["validation"]["tags"], tags_plot)

    drawn = _draw(data, validation, judged_out_of_fold)
    plots_dir.mkdir(parents=True, exist_ok=True)
    with continue_run(settings, params, group, made.weights_sha256) as tracked:
        tracked.set_tags({"bundle_digest": made.digest})
        tracked.log_metrics(figures.flat_figures(document))
        tracked.log_dict("metrics.json", document)
        for name, figure in drawn.items():
            figure.savefig(plots_dir / name, dpi=80, metadata={"Software": None})
            tracked.log_figure(name, figure)
    typer.echo(f"{group}: macro F1 {document['macro_f1']} on {len(validation.truth)} pictures")


def _read_crossval(path: Path, data: GroupData) -> pd.DataFrame:
    """Return the out-of-fold scores beside the truth: columns fold, tags, then true_<tag>."""
    table = read_scores(path)
    known = data.table.set_index("image_name").loc[table["image_name"]]
    for tag in data.tags:
        table[f"true_{tag}"] = known[tag].to_numpy()
    return table


def _scores_and_truth(table: pd.DataFrame, tags: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    truth = table[[f"true_{tag}" for tag in tags]].to_numpy(dtype=np.uint8)
    return table[list(tags)].to_numpy(dtype=np.float64), truth


def _bundle(data: GroupData, model: TagModel, weights: Path, out_of_fold: pd.DataFrame) -> Bundle:
    shrink = data.params.evaluate.shrink
    if len(out_of_fold):
        thresholds, support = calibrate(*_scores_and_truth(out_of_fold, data.tags), shrink)
    else:  # split.folds: 0
        thresholds = (UNCALIBRATED,) * len(data.tags)
        support = (0,) * len(data.tags)
    transform = data.pictures.transform
    return Bundle(
        group=data.group,
        tags=data.tags,
        arch=model.arch,
        pooled=model.pooled,
        transform=transform,
        thresholds=thresholds,
        support=support,
        prefixes=prefix_digests(model, transform),
        pretrained=pretrained_of(weights),
        weights_sha256=file_sha256(weights),
    )


def _judge_validation(data: GroupData, model: TagModel, bundle: Bundle) -> Judged:
    held = data.examples(data.validation)
    freeze = data.params.train.freeze
    found = scores(model, data.source(model), held.rows, freeze, data.device)
    return Judged(held.rows, held.truth, found, predict(found, bundle.thresholds))


def _judge_out_of_fold(data: GroupData, table: pd.DataFrame) -> Judged | None:
    """Judge each fold by thresholds from the other folds: none has seen what it is judged on."""
    if not len(table):
        return None
    shrink = data.params.evaluate.shrink
    found, truth = _scores_and_truth(table, data.tags)
    decisions = np.zeros_like(truth)
    for fold in np.unique(table["fold"]):
        here = (table["fold"] == fold).to_numpy()
        thresholds, _ = calibrate(found[~here], truth[~here], shrink)
        decisions[here] = predict(found[here], thresholds)
    rows = pd.Index(data.table["image_name"]).get_indexer(table["image_name"])
    return Judged(rows, truth, found, decisions)


def _write_judged(
    data: GroupData, validation: Judged, out_of_fold: Judged | None, path: Path
) -> None:
    pictures = data.table["image_name"]
    tables = [validation.table(pictures, "validation", data.tags)]
    if out_of_fold is not None:
        tables.append(out_of_fold.table(pictures, "crossval", data.tags))
    write_evaluated(tables, path)


def _document(
    data: GroupData, bundle: Bundle, validation: Judged, out_of_fold: Judged | None
) -> dict[str, Any]:
    rule, seed, tags = data.params.evaluate, data.params.split.seed, data.tags
    report = validation.report(tags, rule, seed)
    by_frequency = figures.frequency_macro_f1(
        data.examples(data.training).truth,
        validation.truth,
        figures.measurable_tags(validation.truth, rule.min_positives),
    )
    return {
        "group": data.group,
        "bundle_digest": bundle.digest,
        "macro_f1": report["macro_f1"],
        "frequency_macro_f1": by_frequency and round(by_frequency, 4),
        "thresholds": dict(zip(tags, bundle.thresholds, strict=True)),
        "validation": report,
        "crossval": out_of_fold and out_of_fold.report(tags, rule, seed),
    }


def _write_tags(tags: dict[str, dict[str, Any]], path: Path) -> None:
    columns = ("support", "precision", "recall", "f1")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["tag", *columns])
        for tag, report in tags.items():  # what is not measurable has no bar, rather than one at 0
            measured = (report[c] for c in columns)
            rows.writerow([tag, *("" if v == figures.NOT_MEASURABLE else v for v in measured)])


def _draw(data: GroupData, validation: Judged, out_of_fold: Judged | None) -> dict[str, Figure]:
    # Four times as many pictures as the validation side has: curves of rare tags need them.
    judged, where = (
        (validation, "validation") if out_of_fold is None else (out_of_fold, "out of fold")
    )
    true, found, said, tags = judged.truth, judged.scores, judged.decisions, data.tags
    title = f"{data.group}, {len(true)} pictures, {where}"
    wrong = (true != said).any(axis=1)
    worst = [row for row in plots.worst_first(true, found) if wrong[row]]
    measurable = figures.measurable_tags(true, data.params.evaluate.min_positives)
    return {
        "validation_sheet.png": _sheet(
            data, validation, range(len(validation.rows)), f"{data.group}: validation pictures"
        ),
        "worst_mistakes.png": _sheet(
            data, judged, worst, f"{data.group}: mistakes {where}, worst first"
        ),
        "precision_recall.png": plots.precision_recall(true, found, tags, measurable, title),
        "reliability.png": plots.reliability(true, found, title),
        "confusions.png": plots.confusions(true, said, tags, title),
    }


def _sheet(data: GroupData, judged: Judged, order: Sequence[int], title: str) -> Figure:
    """Draw the first of the judged pictures in an order; the title says of how many."""
    chosen = list(order[: plots.SHEET_PICTURES])
    if len(chosen) < len(order):
        title = f"{title}, {len(chosen)} of {len(order)}"
    shown = [
        plots.Shown(
            name=str(data.table["image_name"].iloc[row]),
            pixels=data.pictures.plain(int(row)),
            true_tags=true_tags,
            said_tags=said,
        )
        for row, true_tags, said in zip(
            judged.rows[chosen],
            tags_of(judged.truth[chosen], data.tags),
            tags_of(judged.decisions[chosen], data.tags),
            strict=True,
        )
    ]
    return plots.contact_sheet(shown, title)


if __name__ == "__main__":
    run(main)
