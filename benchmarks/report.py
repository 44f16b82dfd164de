"""Writes the results as a page, as JSON and as a plot."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from matplotlib.figure import Figure

from .int8 import RUNTIMES
from .isolated import Outcome
from .variants import GROUPS, VARIANTS, Variant

BASELINE = "b"
REFERENCE = "f"  # of int8
HALF = ("d", "e", "f")  # variants in bfloat16 where the processor supports it natively
TEN_MILLION = 10_000_000
BACKGROUND = Path(__file__).with_name("background.md")


def per_second(outcome: Outcome) -> float:
    return outcome.pictures / outcome.wall_s


def per_cpu_second(outcome: Outcome) -> float:
    return outcome.pictures / outcome.cpu_s


@dataclass(frozen=True)
class Results:
    """All measurements of one run of the benchmark; `fp32` and `bf16` in gigaflops per second."""

    machine: str
    pictures: str
    rounds: int
    fp32: float
    bf16: float
    outcomes: dict[str, list[Outcome]]

    def of(self, name: str, value: Callable[[Outcome], float]) -> float:
        """Return the median of a value over the rounds."""
        return median(value(outcome) for outcome in self.outcomes[name])

    @property
    def baseline(self) -> str:
        """The variant to compare with: the article's single loop, or the first that was run."""
        return BASELINE if BASELINE in self.outcomes else next(iter(self.outcomes))

    def rate(self, name: str) -> float:
        return self.of(name, per_second)

    def ratio(self, name: str, to: str, rate: Callable[[Outcome], float] = per_second) -> float:
        """Return the speed relative to another variant, as the median of the ratios per round."""
        pairs = zip(self.outcomes[name], self.outcomes[to], strict=True)
        return median(rate(o) / rate(b) for o, b in pairs)

    def ceiling(self, name: str) -> float:
        """Return the pictures per second if multiply-adds alone took all the time."""
        peak = max(self.fp32, self.bf16) if name[0] in HALF else self.fp32
        return peak / self.outcomes[name][0].gigaflops


def write(results: Results, folder: Path) -> None:
    """Write BENCHMARKS.md, benchmarks.json and benchmarks.png into `folder`."""
    measured = [variant for variant in VARIANTS if variant.name in results.outcomes]
    folder.mkdir(parents=True, exist_ok=True)
    objects = [_as_object(results, variant) for variant in measured]
    (folder / "benchmarks.json").write_text(json.dumps(objects, indent=1) + "\n")
    (folder / "BENCHMARKS.md").write_text(_page(results, measured), encoding="utf-8")
    _plot(results, _three(measured) or measured).savefig(folder / "benchmarks.png", dpi=110)


def _three(measured: Sequence[Variant]) -> list[Variant]:
    return [v for v in measured if v.name == v.letter]


def _as_object(results: Results, variant: Variant) -> dict[str, object]:
    name = variant.name
    return {
        "name": name,
        "title": variant.title,
        "groups": variant.groups,
        "pictures_per_second": round(results.rate(name), 2),
        "ratio": round(results.ratio(name, results.baseline), 2),
        "decode_s": round(results.of(name, lambda o: 1000 * o.decode_s / o.pictures), 2),
        "model_s": round(results.of(name, lambda o: 1000 * o.model_s / o.pictures), 2),
        "write_s": round(results.of(name, lambda o: 1000 * o.write_s / o.pictures), 2),
        "peak_mb": round(results.of(name, lambda o: o.peak_mb)),
    }


def _page(results: Results, measured: Sequence[Variant]) -> str:
    three = _three(measured)
    parts = [
        "# Benchmarks",
        f"Written by `make bench`: {results.machine}; {results.pictures}, JPEG on disk to rows in "
        f"the store; medians of {results.rounds} alternating rounds. A matrix product reaches "
        f"{results.fp32:.0f} gigaflops per second in float32 and {results.bf16:.0f} in bfloat16 "
        "here.",
        "![Pictures per second of each variant](benchmarks.png)",
        "## Three groups",
        _table(_three_heads(results), [_three_row(results, v) for v in three]),
        "Seconds are for 1,000 pictures. Decoding is CPU time where other processes do it; model "
        "and write are the wall time in which models are at work or rows are written. In this "
        "project all three overlap. Start-up (loading the models) is apart from the rate. The "
        "ceiling is the rate at which the multiply-adds alone would take all the time at the "
        "matrix product's peak, and the share is how much of it is reached, decoding and writing "
        "included. Memory is the peak of all processes together.",
        *_int8(results, measured),
        "## More groups",
        _table(_MORE_HEADS, _more_rows(results, measured)),
        "Cost is the time per picture, as a multiple of the same variant with 3 groups. The last "
        "column is how much less a picture costs than with as many separate models (d).",
    ]
    return "\n\n".join([*parts, BACKGROUND.read_text(encoding="utf-8")])


def _three_heads(results: Results) -> Sequence[str]:
    return (
        "variant", "pictures per second", f"ratio to ({results.baseline})", "decode s", "model s",
        "write s", "start-up s", "peak MB", "ceiling", "share", "10 million pictures",
    )  # fmt: skip


def _three_row(results: Results, variant: Variant) -> list[str]:
    name, values = variant.name, _as_object(results, variant)
    rate, ceiling = results.rate(name), results.ceiling(name)
    return [
        f"({name}) {variant.title}",
        f"{rate:.1f}",
        f"{values['ratio']:.2f}",
        *(f"{values[part]:.1f}" for part in ("decode_s", "model_s", "write_s")),
        f"{results.of(name, lambda o: o.start_s):.1f}",
        f"{values['peak_mb']}",
        f"{ceiling:.0f}",
        f"{rate / ceiling:.0%}",
        f"{TEN_MILLION / rate / 3600:.1f} h",
    ]


_INT8_HEADS = (
    "variant", "pictures per second", "ratio to (f)", "CPU ms per picture", "ratio by CPU time",
    "start-up s", "peak MB", "MB of packages",
)  # fmt: skip


def _int8(results: Results, measured: Sequence[Variant]) -> list[str]:
    """Return the section on int8; none where nothing was measured to compare."""
    if not any(v.runtime for v in measured) or REFERENCE not in results.outcomes:
        return []
    return [
        "## In int8",
        _table(_INT8_HEADS, _int8_rows(results, measured)),
        "The backbone of (f), quantised by the ranges that some of the pictures show, with each "
        f"runtime whose packages are installed{_left_out(measured)} Start-up opens the file of the "
        "quantised backbone, which for torch has the ranges alone. The packages are those that "
        "tagging needs besides the lock's.",
    ]


def _int8_rows(results: Results, measured: Sequence[Variant]) -> list[list[str]]:
    rows = []
    for variant in measured:
        if variant.letter != REFERENCE or variant.groups != GROUPS[0]:
            continue
        name, runtime = variant.name, RUNTIMES.get(variant.runtime or "")
        rows.append(
            [
                f"({variant.letter}) {variant.title}",
                f"{results.rate(name):.1f}",
                f"{results.ratio(name, REFERENCE):.2f}",
                f"{results.of(name, lambda o: 1000 / per_cpu_second(o)):.1f}",
                f"{results.ratio(name, REFERENCE, per_cpu_second):.2f}",
                f"{results.of(name, lambda o: o.start_s):.1f}",
                f"{results.of(name, lambda o: o.peak_mb):.0f}",
                f"{runtime.megabytes if runtime else 0:.0f}",
            ]
        )
    return rows


def _left_out(measured: Sequence[Variant]) -> str:
    out = [RUNTIMES[v.runtime].title for v in VARIANTS if v.runtime and v not in measured]
    return f", so not with {' or '.join(out)}." if out else "."


_MORE_HEADS = ("variant", "groups", "pictures per second", "cost", "less than separate models")


def _more_rows(results: Results, measured: Sequence[Variant]) -> list[list[str]]:
    rows = []
    for variant in sorted(measured, key=lambda v: (v.letter, v.groups)):
        separate = f"d{variant.name[1:]}"
        if variant.letter not in HALF or not {variant.letter, separate} <= set(results.outcomes):
            continue
        rows.append(
            [
                f"({variant.letter}) {variant.title}",
                str(variant.groups),
                f"{results.rate(variant.name):.1f}",
                f"{1 / results.ratio(variant.name, variant.letter):.2f}",
                f"{results.ratio(variant.name, separate):.2f}",
            ]
        )
    return rows


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plot(results: Results, measured: Sequence[Variant]) -> Figure:
    figure = Figure(figsize=(7, 3.4), layout="constrained")
    axes = figure.add_subplot()
    labels = [f"({v.name}) {v.title}" for v in measured]
    rates, to = [results.rate(v.name) for v in measured], results.baseline
    bars = axes.barh(
        labels, rates, color=["#8c959f" if v.letter < "d" else "#1a7f37" for v in measured]
    )
    axes.bar_label(bars, [f" {results.ratio(v.name, to):.1f} x ({to})" for v in measured])
    axes.invert_yaxis()
    axes.set(xlabel="pictures per second, three groups", xlim=(0, 1.18 * max(rates)))
    axes.spines[["top", "right"]].set_visible(False)
    return figure
