"""Compares ways to tag: `python -m benchmarks --pictures FOLDER` (or `make bench`)."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import torch
import typer

from shoetagger.config import params

from . import machine, report, variants
from .pictures import PicturesOption, folder_of

REPO = Path(__file__).parents[1]


def bench(
    pictures: PicturesOption = None,
    rounds: Annotated[int, typer.Option(help="How often each variant runs.")] = 3,
    only: Annotated[
        str | None, typer.Option(help='Names of variants, such as "f,f torch".')
    ] = None,
    most: Annotated[int | None, typer.Option(help="Most pictures per variant.")] = None,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = REPO / "docs",
) -> None:
    """Measure all variants on the same pictures; write BENCHMARKS.md, .json and a plot."""
    chosen = variants.named(only)
    with tempfile.TemporaryDirectory(prefix="shoetagger-drawn-") as drawn:
        wanted = max(variant.pictures for variant in chosen)
        folder = folder_of(pictures, Path(drawn), min(wanted, most or wanted))
        paths = [path for path in folder.iterdir() if path.is_file()]
        peaks = [measured_peaks()]
        outcomes = variants.run(
            REPO, paths, rounds=rounds, variants=chosen, most=most, say=typer.echo
        )
        peaks.append(measured_peaks())
    results = report.Results(
        machine=machine.description(),
        pictures=(
            f"{len(paths)} {'pictures of a folder' if pictures else 'drawn shoes'} with "
            f"`images.framing: {params.load(REPO / 'params.yaml').images.framing}`"
        ),
        rounds=rounds,
        fp32=max(fp32 for fp32, _ in peaks),
        bf16=max(bf16 for _, bf16 in peaks),
        outcomes=outcomes,
    )
    report.write(results, out)
    typer.echo(f"{out / 'BENCHMARKS.md'}, benchmarks.json and benchmarks.png are written")


def measured_peaks() -> tuple[float, float]:
    return machine.matrix_gigaflops(torch.float32), machine.matrix_gigaflops(torch.bfloat16)


if __name__ == "__main__":
    typer.run(bench)
