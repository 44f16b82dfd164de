"""The results of `benchmarks.gpu` as Markdown tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torchvision.models import get_model_weights

TEN_MILLION = 10_000_000


def page(results: Mapping[str, Any]) -> str:
    """Return a table per section that was run."""
    here = results["machine"]
    parts = [
        f"{here['device']}, {here['cores']} decoding processes; {here['cpu']}; {here['copies']:,} "
        f"copies of {here['originals']:,} pictures; weights of the ResNet-18: {here['weights']}. A "
        f"matrix product reaches {here['teraflops']:.3g} teraflops per second in bfloat16."
    ]
    for name, table in (
        ("nights", _nights),
        ("pieces", _pieces),
        ("training", _training),
        ("agreement", _agreement),
    ):
        if name in results:
            parts.append(table(results[name], here["teraflops"]))
    return "\n\n".join(parts)


def _nights(nights: Mapping[str, Any], _: float) -> str:
    head = (
        "backbone", "pictures per second", "batch", "list s", "model s", "write s",
        "10 million pictures",
    )  # fmt: skip
    rows = []
    for name, of in nights.items():
        thousands = of["pictures"] / 1000
        rate = of["pictures"] / of["seconds"]
        parts = (of[part] / thousands for part in ("list_s", "model_s", "write_s"))
        batch = str(of["batch"]) if of["batch"] else ""
        rows.append([name, f"{rate:,.0f}", batch, *map(_seconds, parts), _hours(rate)])
    return _table(head, rows)


def _pieces(pieces: Mapping[str, Mapping[str, float]], teraflops: float) -> str:
    head = ("piece", "pictures per second", "10 million pictures", "of the matrix product's rate")
    rows = []
    for name, rates in pieces.items():
        for piece, rate in rates.items():
            used = 2e-3 * _giga_multiply_adds(name) * rate / teraflops if piece == "trunk" else None
            share = "" if used is None else f"{used:.0%}"
            rows.append([f"{name}: {piece}", f"{rate:,.0f}", _hours(rate), share])
    return _table(head, rows)


def _giga_multiply_adds(arch: str) -> float:
    """Return the multiply-adds of one picture of 224 pixels, by torchvision's own figures."""
    return float(get_model_weights(arch)["IMAGENET1K_V1"].meta["_ops"])


def _training(training: Mapping[str, Mapping[str, float]], _: float) -> str:
    head = ("training", "seconds", "features s", "of which drawing views s", "fits s")
    rows = [
        [
            name,
            f"{of['features_s'] + of['fits_s']:.1f}",
            *(f"{of[part]:.1f}" for part in ("features_s", "drawing_s", "fits_s")),
        ]
        for name, of in training.items()
    ]
    return _table(head, rows)


def _agreement(agreement: Mapping[str, str], _: float) -> str:
    return _table(("compared", "difference"), [list(pair) for pair in agreement.items()])


def _hours(rate: float) -> str:
    minutes = TEN_MILLION / rate / 60
    return f"{minutes / 60:.1f} h" if minutes >= 90 else f"{minutes:.1f} min"


def _seconds(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
