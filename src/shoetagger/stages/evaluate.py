"""Stage `evaluate@group`: thresholds, the bundle, metrics and plots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from matplotlib.figure import Figure

from ..config import params as parameters
from ..config.settings import Settings
from ..inference.bundle import Bundle, save_bundle
from ..inference.decision import UNCALIBRATED, tags_of
from ..learning.dataset.tables import read_scores, write_predictions
from ..learning.evaluation import plot_tables, plots
from ..learning.evaluation.calibration import calibrate
from ..learning.evaluation.contact_sheet import SHEET_IMAGES, Shown, contact_sheet
from ..learning.evaluation.documents import flat_metrics, macro_f1_in_words, write_metrics
from ..learning.evaluation.metrics import frequency_macro_f1, measurable_tags
from ..learning.evaluation.novelty import distances, unsure_above
from ..learning.evaluation.predictions import Predictions, thresholds_of_other_folds
from ..learning.training.scoring import scores
from ..network.backbone import TagModel
from ..network.devices import pick_device
from ..network.digests import file_sha256, prefix_digests
from ..network.weights import origin_of, pretrained_of
from .command import Features, Group, Images, SplitTable, run
from .group import GroupData, open_group_data
from .mlflow_run import continue_run


def main(
    group: Group,
    split: SplitTable,
    images: Images,
    features: Features,
    weights: Annotated[Path, typer.Option(help="weights that the stage train wrote")],
    crossval: Annotated[Path, typer.Option(help="scores that the stage crossval wrote")],
    bundle: Annotated[Path, typer.Option(help="bundle.json to write")],
    predictions: Annotated[Path, typer.Option(help="CSV file of all predictions to write")],
    metrics: Annotated[Path, typer.Option(help="JSON file of all metrics to write")],
    summary: Annotated[Path, typer.Option(help="JSON file of the main metrics to write")],
    tags_plot: Annotated[Path, typer.Option(help="CSV file of the metrics per tag to write")],
    confusion_plot: Annotated[Path, typer.Option(help="CSV file of the confused tags to write")],
    curve_plot: Annotated[Path, typer.Option(help="CSV file of precision and recall to write")],
    reliability_plot: Annotated[Path, typer.Option(help="CSV file of scores and truth to write")],
    plots_dir: Annotated[Path, typer.Option("--plots", help="folder of the plots to write")],
) -> None:
    """Calibrate thresholds on the out-of-fold scores, then evaluate on the validation side."""
    params, settings = parameters.load(Path("params.yaml")), Settings.from_environment()
    device = pick_device(settings.device)
    data = open_group_data(params, group, split, images, features, device)
    model = data.trained_model(weights)

    out_of_fold_scores = read_scores(crossval)
    new_bundle = _bundle(data, model, weights, out_of_fold_scores)
    save_bundle(new_bundle, bundle)

    validation = _predict_validation(data, model, new_bundle)
    out_of_fold = _predict_out_of_fold(data, out_of_fold_scores)
    _write_predictions(data, validation, out_of_fold, predictions)
    document = _document(data, new_bundle, validation, out_of_fold)
    document["unsure"] = _unsure(data, model, new_bundle)
    write_metrics(document, metrics, summary)
    plot_tables.write_tags(document["validation"]["tags"], tags_plot)
    # Four times as many pictures as the validation side has: curves of rare tags need them. Of
    # several repeats the first is drawn, so that a mark is a picture.
    drawn = validation if out_of_fold is None else out_of_fold
    plot_tables.write_confusions(drawn.truth, drawn.predicted[0], data.tags, confusion_plot)
    plot_tables.write_precision_recall(drawn.truth, drawn.scores[0], curve_plot)
    plot_tables.write_reliability(drawn.truth, drawn.scores[0], reliability_plot)

    figures = _draw(data, validation, out_of_fold)
    plots_dir.mkdir(parents=True, exist_ok=True)
    with continue_run(settings, params, group, new_bundle.weights_sha256) as tracked:
        tracked.set_tags({"bundle_digest": new_bundle.digest})
        tracked.log_metrics(flat_metrics(document))
        tracked.log_dict("metrics.json", document)
        for name, figure in figures.items():
            figure.savefig(plots_dir / name, dpi=80, metadata={"Software": None})
            tracked.log_file(name, plots_dir / name)  # drawing them is half of this stage's time
    found = macro_f1_in_words(document["validation"])
    typer.echo(f"{group}: macro F1 {found} on {len(validation.truth)} pictures")


def _scores_and_truth(table: pd.DataFrame, data: GroupData) -> tuple[np.ndarray, np.ndarray]:
    """Return out-of-fold scores (repeats, N, tags), and the truth (N, tags) of these pictures."""
    tags = list(data.tags)
    repeats = [scores[tags].to_numpy(dtype=np.float64) for _, scores in table.groupby("repeat")]
    known = data.table.set_index("image_name").loc[list(_names(table))]
    return np.stack(repeats), known[tags].to_numpy(dtype=np.uint8)


def _names(table: pd.DataFrame) -> pd.Series[str]:
    """Return the pictures of a table of scores; each repeat has them in the same order."""
    return table.loc[table["repeat"] == 0, "image_name"]


def _bundle(data: GroupData, model: TagModel, weights: Path, out_of_fold: pd.DataFrame) -> Bundle:
    shrink = data.params.evaluate.shrink
    if len(out_of_fold):
        thresholds, support = calibrate(*_scores_and_truth(out_of_fold, data), shrink)
    else:  # split.folds: 0
        thresholds = (UNCALIBRATED,) * len(data.tags)
        support = (0,) * len(data.tags)
    transform = data.dataset.transform
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
        origin=origin_of(model.arch, data.params.train_of(data.group).weights),
        weights_sha256=file_sha256(weights),
        none_below=data.params.group(data.group).none_below,
        unsure_above=_unsure_above(data, model),
    )


def _unsure_above(data: GroupData, model: TagModel) -> float | None:
    """Return the distance beyond which a picture is unsure; None without a quantile or folds."""
    quantile, table = data.params.evaluate.unsure_quantile, data.table[data.training]
    if quantile is None or table["fold"].nunique() < 2:
        return None
    return unsure_above(
        model,
        data.source(model),
        np.flatnonzero(data.training.to_numpy()),
        table["fold"].to_numpy(),
        quantile=quantile,
        freeze=data.params.train.freeze,
        device=data.device,
    )


def _unsure(data: GroupData, model: TagModel, bundle: Bundle) -> dict[str, Any] | None:
    """Return how many validation pictures are unsure; None where no picture is."""
    if bundle.unsure_above is None:
        return None
    rows, freeze = np.flatnonzero(data.validation.to_numpy()), data.params.train.freeze
    found = distances(model, data.source(model), rows, freeze, data.device)
    return {
        "quantile": data.params.evaluate.unsure_quantile,
        "above": bundle.unsure_above,
        "validation_pictures": int((found > bundle.unsure_above).sum()),
    }


def _predict_validation(data: GroupData, model: TagModel, bundle: Bundle) -> Predictions:
    examples = data.examples(data.validation)
    freeze = data.params.train.freeze
    scored = scores(model, data.source(model), examples.rows, freeze, data.device)
    thresholds = np.array(bundle.thresholds)
    return Predictions(examples.rows, examples.truth, scored[None], thresholds, bundle.none_below)


def _predict_out_of_fold(data: GroupData, table: pd.DataFrame) -> Predictions | None:
    if not len(table):
        return None
    scored, truth = _scores_and_truth(table, data)
    folds = np.stack([scores["fold"].to_numpy() for _, scores in table.groupby("repeat")])
    thresholds = thresholds_of_other_folds(scored, truth, folds, data.params.evaluate.shrink)
    rows = pd.Index(data.table["image_name"]).get_indexer(_names(table))
    none_below = data.params.group(data.group).none_below
    return Predictions(rows, truth, scored, thresholds, none_below)


def _write_predictions(
    data: GroupData, validation: Predictions, out_of_fold: Predictions | None, path: Path
) -> None:
    names = data.table["image_name"]
    tables = [validation.table(names, "validation", data.tags)]
    if out_of_fold is not None:
        tables.append(out_of_fold.table(names, "crossval", data.tags))
    write_predictions(tables, path)


def _document(
    data: GroupData, bundle: Bundle, validation: Predictions, out_of_fold: Predictions | None
) -> dict[str, Any]:
    rule, seed, tags = data.params.evaluate, data.params.split.seed, data.tags
    report = validation.report(tags, rule, seed)
    by_frequency = frequency_macro_f1(
        data.examples(data.training).truth,
        validation.truth,
        measurable_tags(validation.truth, rule.min_positives),
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


def _draw(
    data: GroupData, validation: Predictions, out_of_fold: Predictions | None
) -> dict[str, Figure]:
    predictions, where = (
        (validation, "of the validation side")
        if out_of_fold is None
        else (out_of_fold, "out of fold")
    )
    # The first repeat, where there are several.
    truth, scored, predicted = predictions.truth, predictions.scores[0], predictions.predicted[0]
    group, titles = data.params.title(data.group), _titles(data)
    title = f"{group}: {len(truth)} pictures {where}"
    wrong = (truth != predicted).any(axis=1)
    worst = [row for row in plots.worst_first(truth, scored) if wrong[row]]
    measurable = measurable_tags(truth, data.params.evaluate.min_positives)
    return {
        "validation_sheet.png": _sheet(
            data,
            validation,
            range(len(validation.rows)),
            f"{group}: pictures of the validation side",
        ),
        "worst_mistakes.png": _sheet(
            data, predictions, worst, f"{group}: mistakes on pictures {where}, worst first"
        ),
        "precision_recall.png": plots.precision_recall(truth, scored, titles, measurable, title),
        "reliability.png": plots.reliability(truth, scored, title),
        "confusions.png": plots.confusions(truth, predicted, titles, title),
    }


def _titles(data: GroupData) -> list[str]:
    return [data.params.title(tag) for tag in data.tags]


def _sheet(data: GroupData, predictions: Predictions, order: Sequence[int], title: str) -> Figure:
    """Draw the first pictures of an order; the title says how many of how many."""
    chosen = list(order[:SHEET_IMAGES])
    if len(chosen) < len(order):
        title = f"{title}, {len(chosen)} of {len(order)}"
    shown = [
        Shown(
            name=str(data.table["image_name"].iloc[row]),
            pixels=data.dataset.plain(int(row)),
            true_tags=true_tags,
            predicted_tags=predicted_tags,
        )
        for row, true_tags, predicted_tags in zip(
            predictions.rows[chosen],
            tags_of(predictions.truth[chosen], _titles(data)),
            tags_of(predictions.predicted[0, chosen], _titles(data)),
            strict=True,
        )
    ]
    return contact_sheet(shown, title)


if __name__ == "__main__":
    run(main)
