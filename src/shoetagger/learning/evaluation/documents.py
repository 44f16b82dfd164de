"""Documents of metrics: their JSON files, and their numbers by the names that MLflow shows.

Registering a model reads them, so this imports neither scikit-learn nor pandas, which take seconds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Of a metric: its sections in MLflow's charts, and the metric; the last part may be any tag.
MetricName = tuple[str, ...]

NOT_MEASURABLE = "not measurable"
TAG_METRICS = ("precision", "recall", "f1", "average_precision", "f1_interval")
_REPORT_METRICS = (
    "macro_f1", "macro_f1_deviation", "macro_f1_at_half", "micro_f1", "exact_match", "repeats",
)  # fmt: skip
_SUMMARY_METRICS = ("macro_f1", "micro_f1", "exact_match")


def write_metrics(document: Mapping[str, Any], metrics: Path, summary: Path) -> None:
    """Write a metrics document, and its summary, as JSON files."""
    for path, content in ((metrics, document), (summary, summarise(document))):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1) + "\n")


def summarise(document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the few metrics of each part that fit on one line."""
    parts = {part: document[part] for part in ("crossval", "validation")}
    return {
        part: {key: report[key] for key in _SUMMARY_METRICS}
        for part, report in parts.items()
        if report is not None
    }


def macro_f1_in_words(report: Mapping[str, Any]) -> str:
    """Return the macro F1 of a report, and which tags it leaves out as not measurable."""
    value = report["macro_f1"]
    number = f"{value:.3f}" if isinstance(value, int | float) else str(value)
    # Documents of earlier commits do not name them.
    left_out = ", ".join(report.get("not_measurable", []))
    return f"{number} (not measurable: {left_out})" if left_out else number


def flat_metrics(document: dict[str, Any]) -> dict[MetricName, float]:
    """Return the numbers of a metrics document by the names that MLflow shows."""
    flat: dict[MetricName, Any]
    flat = {(key,): document[key] for key in ("macro_f1", "frequency_macro_f1")}
    numbers = {k: float(v) for k, v in flat.items() if isinstance(v, int | float)}
    if unsure := document.get("unsure"):
        numbers["validation", "unsure"] = float(unsure["validation_pictures"])
    for part in ("validation", "crossval"):
        numbers |= flat_report(part, document[part])
    return numbers


def flat_report(part: str, report: dict[str, Any] | None) -> dict[MetricName, float]:
    """Return the numbers of one report by name; each name begins with the part."""
    if report is None:
        return {}
    flat: dict[MetricName, Any] = {(part, key): report.get(key) for key in _REPORT_METRICS}
    if (none := report.get("none_of_these")) and none["in_use"]["none_below"] is not None:
        best = next(other for other in none["others"] if other["none_below"] is None)
        flat[part, "abstained"] = none["in_use"]["abstained"]
        flat[part, "abstained_rightly"] = none["in_use"]["rightly"]
        flat[part, "macro_f1_without_none"] = best["macro_f1"]
    flat[part, "most_frequent_share"] = report["most_frequent_prediction"]["share"]
    for tag, values in report["tags"].items():
        flat |= {(part, key, tag): values[key] for key in ("support", *TAG_METRICS)}
    # Intervals and "not measurable" are not numbers.
    return {k: float(v) for k, v in flat.items() if isinstance(v, int | float)}
