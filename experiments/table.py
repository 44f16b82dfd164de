"""Print the metrics in experiments/results as the Markdown tables of docs/RESULTS.md."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
import yaml

from .markdown import head, line, number, with_interval
from .scoring import SHOWN_OTHERWISE

_RECIPES = Path("experiments/recipes.yaml")
_HEADS = ("on other backgrounds", "shrunk to 0.7", "shrunk to 0.5")


def main(folder: Path = Path("experiments/results")) -> None:
    """Print a row per recipe that has a result; nothing is computed."""
    recipes = yaml.safe_load(_RECIPES.read_text())
    choosing, reporting, article, detected = (
        [result for name in recipes[part] if (result := _read(folder / f"{name}.json"))]
        for part in ("choosing", "reporting", "article", "detected")
    )
    if not choosing + reporting + article + detected:
        raise typer.BadParameter(f"{folder} holds no result: run `dvc repro experiments/dvc.yaml`")
    first = [result | result["first_folds"] for result in reporting]
    _print("Choosing: all folds of two seeds", choosing)
    _print("Reporting: all folds of three other seeds", reporting)
    _print("Reporting: the first folds of these, at 0.5", first + article)
    _print("A detector: the first folds of these, at 0.5, of more pictures", detected)


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text()) if path.exists() else None


def _print(title: str, results: Sequence[dict[str, Any]]) -> None:
    if not results:
        return
    rows = [_cells(result) for result in results]
    names = list(dict.fromkeys(name for row in rows for name in row))
    typer.echo(f"\n{title}\n\n{head(*names)}")
    for row in rows:
        typer.echo(line(*(row.get(name, "") for name in names)))


def _cells(result: dict[str, Any]) -> dict[str, str]:
    frequent, against = result["most_frequent_prediction"], result.get("against", {})
    return {
        "recipe": result["recipe"],
        "macro F1 [95 %]": with_interval(result),
        **{group: number(f1["macro_f1"]) for group, f1 in result["groups_f1"].items()},
        "mean average precision": number(result["mean_average_precision"]),
        **{
            name: number(result.get(part, {}).get("macro_f1", ""))
            for part, name in zip(SHOWN_OTHERWISE, _HEADS, strict=True)
        },
        "at 0.5": number(result["macro_f1_at_half"]),
        "most frequent prediction": f"{' '.join(frequent['tags'])} {frequent['share']:.0%}",
        "evaluated": f"{result['evaluated']} of {result['pictures_evaluated']} pictures",
        **{
            f"gain, {part}": with_interval(gain, sign="+")
            for part, gain in against.items()
            if part != "recipe"
        },
    }


if __name__ == "__main__":
    typer.run(main)
