"""The whole job on real servers, as `make demo` does it, from a fresh clone of the last commit."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from helpers import desk_loop
from helpers.fork_server import use_for_stages
from helpers.ports import free_ports
from playwright.sync_api import sync_playwright
from tour.browser import MISSING, PROGRAM, chromium

from shoetagger.config.settings import Settings
from shoetagger.demo import __main__
from shoetagger.demo.arrivals import ARRIVALS, let_arrive, untagged
from shoetagger.ingest import folder
from shoetagger.ops.environment import HOST, Ports, airflow_home
from shoetagger.ops.processes import marked_processes
from shoetagger.ops.servers import credentials, down
from shoetagger.store.store import Store

REPO = Path(__file__).parents[2]
GROUPS = ("color", "style", "detail")
BETTER_THAN_FREQUENCY = 0.15
# Airflow reads the DAG files anew every 30 s, which takes more CPU than all the tests do with what
# it finds: the files do not change here.
SELDOM = "\n[dag_processor]\nmin_file_process_interval = 3600\n"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, installed_home: Path) -> Iterator[Settings]:
    """A fresh clone that has been set up, whose servers the first test starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHOETAGGER_USERS", desk_loop.PEOPLE)
        settings = desk_loop.clone(REPO, tmp_path_factory.mktemp("end to end"))
        shutil.copytree(installed_home, settings.home)
        with (airflow_home(settings) / "airflow.cfg").open("a") as configuration:
            configuration.write(SELDOM)
        yield settings
        down(settings, lambda _: None)


@pytest.fixture(scope="module")
def ports() -> Ports:
    """Two ports of this machine that nothing listens on."""
    return free_ports()


def tags_in_store(settings: Settings) -> dict[str, dict[str, tuple[str, ...]]]:
    """File name -> group -> current tags."""
    store = Store(settings.store_url)
    found = {
        folder.path_of(locator).name: {group: current.tags for group, current in row.groups.items()}
        for row in store.current.rows(GROUPS)
        for locator in row.locators
    }
    store.close()
    return found


def versions_in_store(settings: Settings) -> list[tuple[str, str | None]]:
    store = Store(settings.store_url)
    found = [(version.group, version.version) for version in store.ledger.versions()]
    store.close()
    return found


def test_from_a_fresh_clone_to_tagged_pictures(settings: Settings, ports: Ports) -> None:
    lines: list[str] = []
    __main__.demo(settings, ports, lines.append)
    output = "\n".join(lines)

    # The models have learned something that the tags' frequencies alone do not say.
    (checkout,) = (path for path in settings.checkouts.iterdir() if path.is_dir())
    for group in GROUPS:
        metrics = json.loads((checkout / "metrics" / f"{group}.json").read_text())
        gained = metrics["macro_f1"] - metrics["frequency_macro_f1"]
        assert gained >= BETTER_THAN_FREQUENCY, (group, metrics)

    # Every picture has tags of every group; every broken file its reason.
    tags = tags_in_store(settings)
    arrived = {path.name for path in settings.inbox.iterdir()}
    store = Store(settings.store_url)
    reasons = {folder.path_of(row.locator).name: row.reason for row in store.files.rejected()}
    store.close()
    assert len(tags) == ARRIVALS
    assert all(set(current) == set(GROUPS) for current in tags.values())
    assert all(current[group] for current in tags.values() for group in GROUPS)
    assert tags.keys() | reasons.keys() == arrived
    assert not tags.keys() & reasons.keys()
    assert len(reasons) == 3
    assert all(reasons.values())
    assert sorted(versions_in_store(settings)) == sorted((group, "1") for group in GROUPS)

    # It says so, with addresses, and publishes it.
    for expected in (
        f"{ARRIVALS} pictures tagged by color v1, detail v1, style v1",
        "3 files rejected",
        "woken by a promotion",
        f"of {ARRIVALS} right in every group",
        ports.airflow_url,
        ports.mlflow_page,
    ):
        assert expected in output
    for group in GROUPS:
        assert re.search(rf"{group} +\d+ of {ARRIVALS} right: .*; micro F1 [01]\.\d\d", output)
    assert credentials(settings)[1] not in output
    pages = "".join(page.read_text() for page in (settings.published / "pages").rglob("*.html"))
    assert "sneaker" in pages

    # Nothing listens but on the loopback interface.
    listening: set[tuple[str, int]] = set()
    for _, process in marked_processes(settings):
        with contextlib.suppress(psutil.NoSuchProcess):  # Airflow's come and go
            listening |= {
                (connection.laddr.ip, connection.laddr.port)
                for connection in process.net_connections("inet")
                if connection.status == psutil.CONN_LISTEN and connection.laddr
            }
    assert listening == {(HOST, ports.airflow), (HOST, ports.mlflow)}

    # It would find nothing to do a second time; that training again trains nothing is tested with
    # the DAGs, in seconds.
    assert let_arrive(settings) == 0
    assert not untagged(settings, GROUPS)
    status = ["git", "-C", str(settings.repo), "status", "--porcelain"]
    assert subprocess.run(status, capture_output=True, check=True).stdout == b""


@pytest.mark.skipif(PROGRAM is None, reason=MISSING)
def test_what_people_label_in_a_browser_makes_the_next_models(
    settings: Settings, ports: Ports
) -> None:
    """Goes on from the installation of the test before."""
    use_for_stages(settings.repo)
    desk_loop.train_quickly(settings)
    with sync_playwright() as playwright:
        browser = chromium(playwright)
        desk_loop.walk(desk_loop.Walk(settings, ports, browser, GROUPS))
        browser.close()


def test_nothing_is_left_of_the_servers(settings: Settings, ports: Ports) -> None:
    down(settings)
    assert not marked_processes(settings)
    for port in (ports.airflow, ports.mlflow):
        with socket.socket() as probe:
            assert probe.connect_ex((HOST, port)) != 0
