"""`shoetagger backfill --engine ray`: an actor is killed, and then the driver."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from helpers.installation import install, make_live, predictions, put_pictures
from typer.testing import CliRunner

from shoetagger.cli.app import app
from shoetagger.config.settings import Settings
from shoetagger.ops.installation import opened
from shoetagger.orchestration import backfill, ray_backfill
from shoetagger.orchestration.nightly import night
from shoetagger.orchestration.ray_backfill import RayError
from shoetagger.store.rows import BacklogRange
from shoetagger.store.store import Store

PICTURES, RANGE, BATCH = 120, 40, 4


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for Ray's sockets, whose paths must be short; nothing of Ray outlives it."""
    with tempfile.TemporaryDirectory(prefix="r-") as short:
        monkeypatch.setattr(tempfile, "tempdir", short)
        yield Path(short)
        until(lambda: not of_ray(Path(short)), 60)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Pictures that the live version of a group has not tagged."""
    if find_spec("ray") is None:  # not imported here: it reads its environment then
        pytest.skip("Ray is not installed (requirements-ray.lock)")
    settings = install(tmp_path)
    document = yaml.safe_load(settings.params_file.read_text())
    document["tag"]["batch_size"] = BATCH
    settings.params_file.write_text(yaml.safe_dump(document, sort_keys=False))
    put_pictures(settings, PICTURES)
    night(settings, "night")
    make_live(settings, "color", head_seed=7)
    for name, value in settings.as_environment().items():
        monkeypatch.setenv(name, value)
    return settings


def of_ray(temporary: Path) -> list[psutil.Process]:
    """The processes of the cluster with this folder: servers name it, actors are their children."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(temporary) in " ".join(process.cmdline()):
                found += [process, *process.children(recursive=True)]
        except psutil.Error:
            continue
    return found


def actors(temporary: Path) -> list[psutil.Process]:
    return [p for p in of_ray(temporary) if p.cmdline() and "_Actor" in p.cmdline()[0]]


def retagged(settings: Settings) -> int:
    """How many pictures the latest backfill has written so far."""
    with Store(settings.store_url) as store:
        latest = store.runs.latest(1, "backfill")
        return latest[0].counts["retagged"] if latest else 0


def until(condition: Callable[[], Any], seconds: float = 240.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


@pytest.mark.slow
def test_an_actor_that_is_killed_loses_and_doubles_nothing(
    settings: Settings, temporary: Path
) -> None:
    written: list[int] = []
    listening: set[str] = set()

    def kill_one() -> None:
        until(lambda: retagged(settings) > BATCH)
        for process in of_ray(temporary):
            with contextlib.suppress(psutil.Error):
                found = process.net_connections("inet")
                listening.update(c.laddr.ip for c in found if c.status == psutil.CONN_LISTEN)
        actors(temporary)[0].kill()
        written.append(retagged(settings))

    parts = [BacklogRange(n, n + RANGE, RANGE) for n in range(0, PICTURES + RANGE, RANGE)]
    moved: list[int] = []
    with opened(settings) as here, backfill.begun(here) as run:
        killer = threading.Thread(target=kill_one)
        killer.start()
        filled = list(
            ray_backfill.worked_through(
                here, run, parts, None, moved.append, address=None, actors=2
            )
        )
        killer.join()
        counts = here.store.runs.find(run.run_id).counts
    assert BATCH < written[0] < PICTURES
    assert len(filled) == len(parts)
    assert counts["retagged"] == sum(moved) == PICTURES
    assert listening
    assert all(ip.removeprefix("::ffff:") == "127.0.0.1" for ip in listening), listening
    with Store(settings.store_url) as store:
        assert store.current.counts(["color"]).groups["color"].stale == 0
    assert len(predictions(settings)) == PICTURES


@pytest.mark.slow
def test_a_driver_that_is_killed_takes_its_actors_along_and_the_next_one_goes_on(
    settings: Settings, temporary: Path
) -> None:
    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "shoetagger.cli.app", "backfill", "--engine", "ray"],
            env=os.environ | {"TMPDIR": str(temporary)},
            text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    driver = start()
    until(lambda: actors(temporary) or driver.poll() is not None)
    driver.kill()
    driver.communicate()
    until(lambda: not of_ray(temporary), 60)
    left = PICTURES - retagged(settings)
    output, errors = start().communicate(timeout=600)
    assert f"{left} pictures lack tags" in output, errors
    assert f"{left} pictures tagged" in output
    assert len(predictions(settings)) == PICTURES


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_one_line(settings: Settings) -> None:
    with opened(settings) as here, backfill.begun(here) as run:
        work = ray_backfill.worked_through(
            here, run, [BacklogRange(0, 1, 1)], None, print, address="127.0.0.1:9", actors=None
        )
        with pytest.raises(RayError, match=r"no Ray cluster answers at 127\.0\.0\.1:9 "):
            next(work)


def test_without_ray_a_sentence_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(RayError, match=r"not installed here: `uv pip install .*requirements-ray"),
        ray_backfill._cluster(None, 1),
    ):
        pass
    assert (Path(__file__).parents[2] / "requirements-ray.lock").is_file()


def test_options_of_ray_without_ray_are_refused() -> None:
    found = CliRunner().invoke(app, ["backfill", "--actors", "2"])
    assert found.exit_code == 2
    assert "add --engine ray" in found.output
