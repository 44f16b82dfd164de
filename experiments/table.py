"""Print the figures of experiments/results as Markdown tables, in the order of recipes.yaml."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer
import yaml

_COLUMNS = ("F1 at 0.5", "mAP", "on other grounds", "most frequent answer", "judged")


def main(folder: Path = Path("experiments/results")) -> None:
    """Print a row for each recipe that has a result; nothing is computed."""
    recipes = yaml.safe_load(Path("experiments/recipes.yaml").read_text())["recipes"]
    found = [_read(folder / f"{name}.json") for name in recipes]
    results = [result for result in found if result is not None]
    if not results:
        raise typer.BadParameter(f"{folder} holds no result: run `dvc repro experiments/dvc.yaml`")
    groups = list(results[0]["groups_f1"])
    head = ["recipe", "macro F1 [95 %]", *groups, *_COLUMNS]
    typer.echo(f"| {' | '.join(head)} |")
    typer.echo("| --- " * len(head) + "|")
    for result in results:
        typer.echo(_row(result, groups))


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text()) if path.exists() else None


def _row(result: dict[str, Any], groups: list[str]) -> str:
    low, high = result["macro_f1_interval"]
    answer = result["most_frequent_answer"]
    composites = result.get("composites", {}).get("macro_f1")
    cells = [
        result["recipe"],
        f"{result['macro_f1']:.3f} [{low:.3f}, {high:.3f}]",
        *(f"{result['groups_f1'][group]['macro_f1']:.3f}" for group in groups),
        f"{result['macro_f1_at_half']:.3f}",
        f"{result['mean_average_precision']:.3f}",
        "" if composites is None else f"{composites:.3f}",
        f"{' '.join(answer['tags'])} {answer['share']:.0%}",
        f"{result['judged']} in {len(result['seeds'])} x {result['folds']} folds",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    typer.run(main)
