"""Walks from a clone to the desk, and takes the documents' pictures: `python -m tour`.

The last commit is cloned into a temporary folder and installed there, from an empty cache; all of
it is stopped and removed again. docs/ is written once all pictures are taken. `--folder` names one
that stays, in which another call goes on where this one was cut off. It needs Debian's chromium.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import psutil
import typer
from playwright.sync_api import sync_playwright

from shoetagger.config import params
from shoetagger.demo.__main__ import follow_tagging
from shoetagger.demo.arrivals import ARRIVALS, SEED
from shoetagger.demo.sample import arrival_tags
from shoetagger.errors import ShoetaggerError
from shoetagger.ops.servers import down, ports_in_use

from . import page, screens
from .approval import answer, until_asked
from .browser import MISSING, PROGRAM, chromium
from .camera import Camera
from .newcomer import Newcomer, TourError, bytes_of, free_ports
from .plan import MOMENTS, MORE, SCREENS
from .visit import TAGGING, TRAINING, Visit

REPO = Path(__file__).parents[1]
DOCS = REPO / "docs"
MORE_SEED = 8  # by which the pictures are drawn that arrive after the demo
# What a person edits and commits before the second training; fewer views make it quicker.
EDITS = {"approval: never": "approval: always", "views: 12 ": "views: 3 "}


def main(
    folder: Annotated[
        Path | None, typer.Option(help="Stays, and is gone on with; else a temporary one.")
    ] = None,
) -> None:
    """Take the tour, and write docs/TOUR.md and its pictures."""
    if PROGRAM is None:
        raise SystemExit(MISSING)
    place = (
        nullcontext(folder) if folder else tempfile.TemporaryDirectory(prefix="shoetagger-tour-")
    )
    try:
        with place as kept:
            newcomer = Newcomer(Path(kept).absolute(), free_ports(), _say)
            camera = Camera(newcomer.folder / "pictures", _say)
            camera.folder.mkdir(parents=True, exist_ok=True)
            _walk(newcomer, camera)
            _write(camera, _parts(newcomer))
    except ShoetaggerError as error:
        raise SystemExit(f"\nThe tour stopped: {error}") from None


def _walk(newcomer: Newcomer, camera: Camera) -> None:
    """Do every step, and take every picture at its moment."""
    output = newcomer.folder / "demo.txt"
    try:
        newcomer.step("clone", lambda: _clone(newcomer))
        newcomer.step("setup", lambda: newcomer.run("make", "setup"))
        newcomer.step("demo", lambda: output.write_text(newcomer.run("make", "demo")))
        newcomer.run("make", "up")  # an earlier call may have been cut off, or has stopped them
        newcomer.ports = ports_in_use(newcomer.settings)
        with sync_playwright() as playwright:
            browser = chromium(playwright)
            _look(Visit(newcomer, browser, camera))
            browser.close()
    finally:
        if newcomer.clone.is_dir():
            down(newcomer.settings, _say)


def _clone(newcomer: Newcomer) -> None:
    newcomer.run("git", "clone", "--quiet", str(REPO), str(newcomer.clone), cwd=REPO)


def _look(visit: Visit) -> None:
    newcomer, airflow = visit.newcomer, visit.airflow
    settings = newcomer.settings
    groups = list(params.load(settings.params_file).groups)

    if visit.camera.lacks(MOMENTS["after the demo"]):
        screens.airflow_itself(visit, next(iter(airflow.runs(TRAINING))))
    newcomer.step("arrivals", lambda: _let_more_arrive(visit))

    newcomer.step("training", lambda: _train_again(visit, len(groups)))
    run = list(airflow.runs(TRAINING))[-1]
    if visit.camera.lacks(MOMENTS["before an answer"]):
        asked = until_asked(airflow, run, len(groups))[0]
        screens.approval(visit, run, asked)
        compared = airflow.result(TRAINING, run, "model.compare", asked.map_index)
        screens.comparison(visit, compared["report"])
    newcomer.step("approval", lambda: _approve(visit, run, groups))

    if visit.camera.lacks(MOMENTS["after a promotion"]):
        truth = arrival_tags(ARRIVALS, SEED) | arrival_tags(MORE, MORE_SEED)
        screens.mlflow_itself(visit, groups[1])
        screens.rollback_form(visit)
        screens.published_pages(visit)
        screens.labelling(visit, truth)
        screens.desk(visit)
    newcomer.step("audit", lambda: _audit(newcomer))
    if visit.camera.lacks(MOMENTS["after an audit"]):
        screens.audit(visit)


def _let_more_arrive(visit: Visit) -> None:
    newcomer = visit.newcomer
    drawn = newcomer.folder / "drawn"
    sample = (newcomer.program("python"), "-m", "shoetagger.demo.sample", str(drawn))
    newcomer.run(*sample, "--arrivals", "--count", str(MORE), "--seed", str(MORE_SEED))
    for picture in drawn.iterdir():
        picture.rename(newcomer.settings.home / "inbox" / picture.name)
    run = visit.airflow.trigger(TAGGING, {})
    visit.airflow.follow(TAGGING, run, _say)


def _train_again(visit: Visit, groups: int) -> None:
    """Commit another recipe, and let a person be asked; train until one is."""
    newcomer, file = visit.newcomer, visit.newcomer.settings.params_file
    text = file.read_text(encoding="utf-8")
    for before, after in EDITS.items():
        if after not in text:
            if before not in text:
                raise TourError(f"params.yaml has no {before!r} to edit")
            text = text.replace(before, after, 1)
    file.write_text(text, encoding="utf-8")
    who = ("-c", "user.name=ann", "-c", "user.email=ann@example.org")
    if newcomer.run("git", "status", "--porcelain", "params.yaml"):
        newcomer.run("git", *who, "commit", "--quiet", "-am", "Fewer views; a person approves")
    run = visit.airflow.trigger(TRAINING, {})
    until_asked(visit.airflow, run, groups)


def _approve(visit: Visit, run: str, groups: list[str]) -> None:
    airflow = visit.airflow
    tagged = airflow.runs(TAGGING).keys()
    answer(visit, run, until_asked(airflow, run, len(groups)))
    airflow.follow(TRAINING, run, _say)
    follow_tagging(airflow, visit.newcomer.settings, groups, tagged, _say)


def _audit(newcomer: Newcomer) -> None:
    newcomer.run(newcomer.program("dvc"), "repro", "--quiet")
    newcomer.run(newcomer.program("shoetagger"), "audit")


def _parts(newcomer: Newcomer) -> dict[str, str]:
    """Return the parts of the page, by their markers."""
    installed = bytes_of(newcomer.clone / ".venv")
    output = (newcomer.folder / "demo.txt").read_text()
    return {
        "times": page.times(newcomer.seconds, _machine(), installed),
        "demo": page.closing_words(output),
    }


def _machine() -> str:
    """Name the machine in words, and how many processes wanted its cores (in 15 minutes)."""
    cores, memory = os.cpu_count(), psutil.virtual_memory().total / 2**30
    gpu = "a GPU" if Path("/dev/nvidiactl").exists() else "no GPU"
    load = os.getloadavg()[2]
    machine = f"{cores} cores, {memory:.0f} GB of memory and {gpu}"
    if load > 2 * (cores or 1):
        return f"{machine}, which much else was using (a load of {load:.0f})"
    return machine


def _write(camera: Camera, parts: dict[str, str]) -> None:
    """Put the pictures and the parts of the page into docs/, in place of the earlier ones."""
    if missing := camera.lacks(SCREENS):
        raise TourError(f"no picture was taken of: {', '.join(missing)}")
    tour = DOCS / "TOUR.md"
    text = page.with_parts(tour.read_text(encoding="utf-8"), parts)
    shutil.rmtree(DOCS / "tour", ignore_errors=True)
    shutil.copytree(camera.folder, DOCS / "tour")
    tour.write_text(text, encoding="utf-8")
    size = sum(path.stat().st_size for path in (DOCS / "tour").iterdir())
    _say(f"{tour} and {len(SCREENS)} pictures ({size / 1e6:.1f} MB) are written")


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    typer.run(main)
