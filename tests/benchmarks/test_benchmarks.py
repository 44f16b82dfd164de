"""The machinery of the benchmark runs and writes its files; no time is checked here."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path

import pytest
import torch
import typer
from benchmarks import desk as desk_benchmark
from benchmarks import discovery, isolated, machine, report, variants
from benchmarks import store as store_benchmark
from benchmarks.__main__ import bench
from benchmarks.bundles import make_bundles
from benchmarks.filled import Filling
from helpers.bundles import LAYERS

from shoetagger.demo import sample
from shoetagger.images.views import Transform
from shoetagger.inference.bundle import load_bundle
from shoetagger.ops.cluster.services import postgres_binaries
from shoetagger.tagging import run

ROOT = Path(__file__).parents[2]
CHOSEN = variants.named("a,b,c,d,f,f float32,f torch")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_kind_of_variant_tags_every_picture_and_the_report_tells_of_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "no weights"))
    monkeypatch.setenv("GOMP_SPINCOUNT", "0")  # a busy machine's threads must not spin
    pictures = tmp_path / "pictures"
    sample.write_arrivals(pictures, count=2, seed=1)
    outcomes = variants.run(
        ROOT, list(pictures.iterdir()), rounds=1, variants=CHOSEN, say=lambda _: None
    )
    assert all(outcome.pictures == 2 for (outcome,) in outcomes.values())
    # Three backbones, or one: the count of operations shows what is shared.
    assert outcomes["f"][0].gigaflops < 0.4 * outcomes["d"][0].gigaflops
    assert outcomes["d"][0].gigaflops == pytest.approx(outcomes["b"][0].gigaflops, rel=0.02)
    assert outcomes["f torch"][0].cpu_s > 0.1
    assert all(outcome.peak_mb > 50 for (outcome,) in outcomes.values())
    parts = ("decode_s", "model_s", "write_s")
    assert all(getattr(outcome, part) > 0 for (outcome,) in outcomes.values() for part in parts)

    results = report.Results("a machine", "2 pictures", 1, 100.0, 200.0, outcomes)
    report.write(results, tmp_path / "docs")
    objects = json.loads((tmp_path / "docs" / "benchmarks.json").read_text())
    assert [o["name"] for o in objects] == list(outcomes)
    wanted = {"name", "pictures_per_second", "ratio", "decode_s", "model_s", "write_s", "peak_mb"}
    assert all(wanted <= set(o) for o in objects)
    assert next(o["ratio"] for o in objects if o["name"] == "b") == 1.0
    page = (tmp_path / "docs" / "BENCHMARKS.md").read_text(encoding="utf-8")
    assert all(f"| ({variant.letter}) {variant.title} |" in page for variant in CHOSEN)
    assert "are installed, so not with ONNX Runtime or OpenVINO." in page
    assert (tmp_path / "docs" / "benchmarks.png").stat().st_size > 1000


@pytest.mark.slow
def test_variants_are_chosen_by_name_together_with_what_they_are_compared_with(
    tmp_path: Path,
) -> None:
    assert [variant.name for variant in variants.named("d10, f torch")] == ["f", "f torch", "d10"]
    outcome = isolated.Outcome(10, 2.0, 3.0, 1.0, 1.0, 1.0, 1.0, 3.6)
    report.write(report.Results("", "", 1, 1.0, 1.0, {"d10": [outcome]}), tmp_path)
    assert (tmp_path / "benchmarks.png").stat().st_size > 1000
    assert "In int8" not in (tmp_path / "BENCHMARKS.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_bench_tags_at_most_so_many_pictures_per_variant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "matrix_gigaflops", partial(machine.matrix_gigaflops, side=256))
    bench(rounds=1, only="b", most=2, out=tmp_path)
    assert "no --pictures: drawing 2" in capsys.readouterr().out
    pictures = "2 drawn shoes with `images.framing: shoe`, JPEG on disk"
    assert pictures in (tmp_path / "BENCHMARKS.md").read_text()


@pytest.mark.parametrize(("gigaflops", "largest"), [(100.0, 2048), (1.0, 512)])
def test_the_peak_of_a_type_that_is_emulated_is_that_of_smaller_matrices(
    gigaflops: float, largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a processor without bfloat16, eleven products of the largest would take minutes."""
    sides = []

    def seconds(_: torch.dtype, side: int, repeats: int, __: torch.device) -> list[float]:
        sides.append(side)
        return [2 * side**3 / gigaflops / 1e9] * repeats

    monkeypatch.setattr(machine, "_seconds", seconds)
    assert machine.matrix_gigaflops(torch.bfloat16) == pytest.approx(gigaflops)
    assert max(sides) == sides[-1] == largest


def test_a_variant_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(typer.BadParameter, match="g: the variants are a, b, c, d, e, f, f float32"):
        variants.named("f,g")


@pytest.mark.slow
@pytest.mark.parametrize(("freeze", "shared"), [("none", 0), ("layer3", 4), ("layer4", 5)])
def test_bundles_share_just_what_is_frozen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, freeze: str, shared: int
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "no weights"))
    folders = make_bundles(tmp_path, 3, freeze, [("layer4",)], Transform(size=32))
    prefixes = [load_bundle(folder).prefixes for folder in folders]
    alike = [layer for layer in LAYERS if len({p[layer] for p in prefixes}) == 1]
    assert alike == list(LAYERS[:shared])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
@pytest.mark.timeout(300)
def test_no_step_of_the_store_reads_all_that_is_known(tmp_path: Path, kind: str) -> None:
    if kind == "postgresql" and postgres_binaries() is None:
        pytest.skip("no PostgreSQL binaries on this machine (apt-get install postgresql)")
    filling = Filling(1200, days=6)
    with store_benchmark.filled(kind, filling, tmp_path) as url:
        figures, size = store_benchmark.measure(url, filling, tmp_path / "published")
    assert size > 0
    if kind == "postgresql":
        return  # with so few rows, it reads tables whole
    # Rows found by a partial index, or the first page of an order, are few; so are the lowest ids.
    few = r"(?! USING INDEX| USING COVERING INDEX images_image_id)"
    scan = re.compile(rf"SCAN (files|images|predictions){few}")
    whole = {name: [line for line in f.plan if scan.match(line)] for name, f in figures.items()}
    assert {name for name, lines in whole.items() if lines} == {"a store that is in use"}


@pytest.mark.slow
def test_every_page_of_a_large_desk_is_asked_for(tmp_path: Path) -> None:
    filling = Filling(1200, days=6)
    figures = desk_benchmark.measure(tmp_path, filling)
    assert set(desk_benchmark.pages(filling)) < set(figures)
    assert all(0 < cpu < 60 for _, cpu in figures.values())


@pytest.mark.slow
def test_finding_work_finds_just_what_is_new_among_many_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_NOTED_AT_ONCE", 500)  # more than one batch
    discovery.make_known(tmp_path, known=1200)
    measured = discovery.measure(tmp_path)  # raises where it is not just that
    assert set(measured) == {"wall", "cpu", "peak_mb"}
