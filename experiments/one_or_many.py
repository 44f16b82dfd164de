"""The tables and the plot of docs/ONE_OR_MANY.md, from what the stages `many` and `costs` wrote.

dvc repro experiments/dvc.yaml:one_or_many
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import matplotlib as mpl
import typer
from matplotlib.figure import Figure

from shoetagger.errors import ShoetaggerError
from shoetagger.stages.command import run

from .costs import NETWORKS
from .markdown import head, line, number, with_interval
from .scoring import SHOWN_OTHERWISE

# The lines of the tables: recipes by the number of pictures; the last learns from all that four of
# five folds leave. Those with a colour are lines of the plot as well.
SIZES = (50, 100, 220, 500, None)
LINES = {
    "one network, frozen trunk": ("one", "C0", "-", "o"),
    "three, frozen trunk": ("three", "C1", "-", "s"),
    "nineteen, frozen trunk": ("nineteen", "C2", "-", "^"),
    "one, last stage trained": ("one_last_stage", "C0", "--", "o"),
    "one, last stage at a third of the rate": ("one_last_stage_third", None, "", ""),
    "one, last stage at three times the rate": ("one_last_stage_triple", None, "", ""),
    "three, last stage trained": ("three_last_stage", "C1", "--", "s"),
    "one, last two stages trained": ("one_two_stages", "C4", "--", "v"),
    "three, last two stages trained": ("three_two_stages", "C5", "--", "^"),
    "one, all weights trained": ("one_all_weights", "C6", "--", "P"),
    "one, the article's recipe": ("one_article", "C0", ":", "o"),
    "three, the article's recipe": ("three_article", "C1", ":", "s"),
    "nineteen, the article's recipe": ("nineteen_article", "C2", ":", "^"),
    "one ResNet-50, the article's recipe": ("one_resnet50_article", "C3", ":", "D"),
    "one, the article's recipe, losses added up": ("one_article_summed", "C0", "-.", "o"),
    "three, the article's recipe, losses added up": ("three_article_summed", "C1", "-.", "s"),
    "one, frozen trunk, one view": ("one_of_one_view", "C0", "-", "x"),
    "one ResNet-50, frozen trunk": ("one_resnet50", "C3", "-", "D"),
    "one ResNet-50, last stage trained": ("one_resnet50_last_stage", "C3", "--", "D"),
}
_PARTS = ("on other backgrounds", "shrunk to 0.7", "shrunk to 0.5")  # of SHOWN_OTHERWISE
_GAINS = ("scores", *SHOWN_OTHERWISE)


class ResultsError(ShoetaggerError):
    """There is nothing to draw."""


def main(
    results: Annotated[Path, typer.Argument(help="folder of the stages' JSON files")],
    plot: Annotated[Path, typer.Argument(help="SVG file to draw")],
) -> None:
    """Draw macro F1 by the number of pictures, and print the tables; nothing is computed."""
    found = {
        name: {size: r for size in SIZES if (r := _read(results, recipe, size)) is not None}
        for name, (recipe, *_) in LINES.items()
    }
    if not any(found.values()):
        raise ResultsError(f"{results} holds no result: run the stages `many` of dvc.yaml first")
    _draw(found, plot)
    _print(found)
    _print_differences(found)
    if (results / "costs.json").exists():
        _print_costs(json.loads((results / "costs.json").read_text()))


def _read(results: Path, recipe: str, size: int | None) -> dict[str, Any] | None:
    path = results / f"{_file(recipe, size)}.json"
    return json.loads(path.read_text()) if path.exists() else None


def _file(recipe: str, size: int | None) -> str:
    return recipe if size is None else f"{recipe}_{size}"


def _draw(found: Mapping[str, Mapping[int | None, dict[str, Any]]], path: Path) -> None:
    """Draw a line per kind of network, with hollow markers at values of fewer folds than others."""
    most_folds = max(len(r["seeds"]) for by_size in found.values() for r in by_size.values())
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axes = figure.subplots()
    for name, by_size in found.items():
        _, colour, style, marker = LINES[name]
        if not by_size or colour is None:
            continue
        x = [result["learned"] for result in by_size.values()]
        y = [result["macro_f1"] for result in by_size.values()]
        few = [number for number, r in enumerate(by_size.values()) if len(r["seeds"]) < most_folds]
        inside = "white" if len(few) == len(x) else colour
        axes.plot(x, y, style, color=colour, marker=marker, markerfacecolor=inside, label=name)
        hollow = [x[number] for number in few], [y[number] for number in few]
        axes.plot(*hollow, marker, color=colour, markerfacecolor="white")
    axes.set(xscale="log", xlabel="pictures learned from", ylabel="macro F1 on other pictures")
    most = max(result["learned"] for by_size in found.values() for result in by_size.values())
    ticks = [size or most for size in SIZES]
    axes.set_xticks(ticks, labels=[f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right center", fontsize="small", frameon=False)
    # The same results give the same file.
    with mpl.rc_context({"svg.hashsalt": "one or many", "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None})


def _print(found: Mapping[str, Mapping[int | None, dict[str, Any]]]) -> None:
    names = (
        "networks", "pictures", "macro F1 [95 %]", "colour", "style", "detail",
        "mean average precision", *_PARTS, "seconds of CPU", "folds",
    )  # fmt: skip
    typer.echo(head(*names))
    for name, by_size in found.items():
        for result in by_size.values():
            cells = (
                name,
                f"{result['learned']:,}",
                with_interval(result),
                *(number(group["macro_f1"]) for group in result["groups_f1"].values()),
                number(result["mean_average_precision"]),
                *(number(result.get(part, {}).get("macro_f1", "")) for part in SHOWN_OTHERWISE),
                f"{result['seconds_per_fold']:.1f}",
                str(len(result["seeds"])),
            )
            typer.echo(line(*cells))


def _print_differences(found: Mapping[str, Mapping[int | None, dict[str, Any]]]) -> None:
    """Print what each gains over the one that it is compared with, on the same pictures."""
    names = {_file(recipe, size): name for name, (recipe, *_) in LINES.items() for size in SIZES}
    compared = [
        (name, result)
        for name, by_size in found.items()
        for result in by_size.values()
        if "against" in result
    ]
    if not compared:
        return
    heads = "networks", "compared with", "pictures", "difference of macro F1 [95 %]"
    typer.echo("\n" + head(*heads, *_PARTS, "folds"))
    for name, result in compared:
        gains = result["against"]
        cells = (
            name,
            names[gains["recipe"]],
            f"{result['learned']:,}",
            *(with_interval(gains[p], "+") if p in gains else "" for p in _GAINS),
            str(len(result["seeds"])),
        )
        typer.echo(line(*cells))


def _print_costs(costs: Mapping[str, Any]) -> None:
    """Print what tagging takes, and what one more tag does, by the number of networks."""
    typer.echo("\n" + head("seconds of CPU per 1,000 pictures", *NETWORKS))
    kinds = dict.fromkeys(tuple(name.split(", ")[::2]) for name in costs["tagging"])
    for arch, shared in kinds:
        seconds = (costs["tagging"][f"{arch}, {n}, {shared}"] for n in NETWORKS)
        typer.echo(line(f"{arch}, {shared}", *(f"{s:.0f}" for s in seconds)))
    names = "seconds of CPU to learn", "pictures with another tag changed"
    typer.echo("\n" + head(f"one more tag ({costs['tag']})", *names))
    for name, found in costs["adding"].items():
        changed = found.get("pictures_changed")
        shown = "none can" if changed is None else f"{changed:.1%}"
        typer.echo(line(name, f"{found['seconds']:.1f}", shown))


if __name__ == "__main__":
    run(main)
