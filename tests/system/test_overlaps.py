"""Runs that overlap neither lose nor double anything, wait in vain, or show people a lock."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import fork_server, postgres
from helpers.installation import TAGS, install, make_live, predictions, put_pictures, write_often

from shoetagger.config.settings import Settings
from shoetagger.demo import __main__
from shoetagger.store.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

RUN = """
import sys
from shoetagger.cli.app import main
sys.argv = ['shoetagger', *sys.argv[1:]]
main()
"""

# What a run of the DAG does in its tasks, woken by a promotion.
RETAG = """
from shoetagger.orchestration.nightly import night
from shoetagger.config.settings import Settings
night(Settings.from_environment(), "retag")
"""

PROMOTE = """
import sys
sys.path.insert(0, sys.argv[1])
from helpers.bundles import forget
from helpers.installation import make_live
from shoetagger.config.settings import Settings
for seed in (7, 8):
    make_live(Settings.from_environment(), "color", head_seed=seed)
forget()  # a fork ends without what is registered for the exit
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """An installation with 60 pictures, 20 of them tagged by an earlier colour; small batches."""
    repo = write_often(tmp_path)
    if request.param == "sqlite":
        found = install(tmp_path)
        put_pictures(found, 60)
        yield replace(found, repo=repo)
        return
    server, template = request.getfixturevalue("postgres_server")
    with postgres.database(server, template) as url:
        found = install(tmp_path, url)
        put_pictures(found, 60)
        yield replace(found, repo=repo)


def start(settings: Settings, code: str, *arguments: str) -> subprocess.Popen[bytes]:
    environment = (
        os.environ | replace(settings, device="cpu").as_environment() | {"OMP_NUM_THREADS": "1"}
    )
    return subprocess.Popen(
        fork_server.python("-c", code, *arguments),
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(*runs: subprocess.Popen[bytes]) -> list[str]:
    """Wait for all; checks that no output mentions a lock, and returns the outputs."""
    outputs = [run.communicate(timeout=300) for run in runs]
    for run, (_, errors) in zip(runs, outputs, strict=True):
        assert run.returncode == 0, errors.decode()
        assert b"locked" not in errors
        assert b"deadlock" not in errors
    return [out.decode() for out, _ in outputs]


def test_two_nights_a_retagging_a_promotion_and_a_tag_at_once(settings: Settings) -> None:
    some = sorted(settings.inbox.iterdir())[:3]
    _, _, _, _, tags = finish(
        start(settings, RUN, "night"),
        start(settings, RUN, "night"),
        start(settings, RETAG),
        start(settings, PROMOTE, str(Path(__file__).parents[1])),
        start(settings, RUN, "tag", *map(str, some), "--format", "jsonl"),
    )
    assert len(tags.splitlines()) == 3
    finish(start(settings, RUN, "night"))  # what the last promotion left to do
    predicted = predictions(settings)
    assert len(predicted) == 60
    assert all(set(groups) == {"color", "style"} for groups in predicted.values())
    with Store(settings.store_url) as store:
        counts = store.current.counts(list(TAGS))
        assert (counts.files, counts.tagged, counts.images) == (60, 60, 60)
        assert (counts.groups["color"].stale, counts.groups["color"].untagged) == (0, 0)
        assert store.ledger.pending() == []
        runs = store.runs.latest(9)
        assert [run.state for run in runs] == ["done"] * 4
        assert sum(run.counts["tagged"] for run in runs) == 60, "each by one of them"
    assert len(list(settings.published.glob("csv/*.csv"))) >= 1


def test_overlapping_runs_say_what_one_run_says(settings: Settings, tmp_path: Path) -> None:
    finish(start(settings, RUN, "night"), start(settings, RUN, "night"))
    alone = replace(install(tmp_path / "alone"), inbox=settings.inbox, repo=settings.repo)
    finish(start(alone, RUN, "night"))
    assert predictions(settings) == predictions(alone)
    make_live(settings, "color", head_seed=7)
    make_live(alone, "color", head_seed=7)
    finish(start(settings, RETAG), start(settings, RUN, "night"), start(alone, RETAG))
    assert predictions(settings) == predictions(alone)


def test_of_two_demos_at_once_the_second_says_so_and_touches_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    settings = Settings.from_environment({"SHOETAGGER_HOME": str(home)})
    hold = (
        "import sys, time\n"
        "from shoetagger.demo import __main__ as demo\n"
        "from shoetagger.config.settings import Settings\n"
        "with demo._alone(Settings.from_environment()):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(600)\n"
    )
    first = start(settings, hold)
    assert first.stdout is not None
    assert first.stdout.readline() == b"held\n"
    second = start(
        settings, "import sys; from shoetagger.demo.__main__ import main; sys.exit(main())"
    )
    _, errors = second.communicate(timeout=120)
    assert second.returncode == 1
    assert b"another `make demo` is running in" in errors
    assert [path.name for path in home.iterdir()] == [".demo.lock"]
    first.kill()
    first.communicate()
    with __main__._alone(settings):  # whoever was killed is in nobody's way
        pass
