"""One process at a time has a turn, and writers do not wait for it."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from helpers import postgres
from helpers.stores import NIGHT, add_bundles

from shoetagger.store.rows import StoreUnavailable
from shoetagger.store.store import Store

HOLDER = """
import sys, time
from shoetagger.store.store import Store
with Store(sys.argv[1]) as store, store.turns.alone("publishing", lambda: None):
    print("mine", flush=True)
    time.sleep(60)
"""


def unexpected() -> None:
    raise AssertionError("nobody else has this turn")


def test_a_turn_is_waited_for_while_others_write(url: str, store: Store) -> None:
    order: list[str] = []
    waits = threading.Event()

    def second() -> None:
        with Store(url) as other, other.turns.alone("publishing", waits.set):
            order.append("second")

    with store.turns.alone("publishing", unexpected):
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(30)
        add_bundles(store)
        store.runs.start("night", {}, NIGHT)
        with Store(url) as other, other.turns.alone("something else", unexpected):
            pass
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    with store.turns.alone("publishing", unexpected):
        pass


@pytest.mark.slow
def test_the_turn_of_a_process_that_is_killed_ends(url: str, store: Store) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, url], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "mine\n"
    waited: list[bool] = []
    threading.Timer(1.0, holder.kill).start()
    with store.turns.alone("publishing", lambda: waited.append(True)):
        assert waited == [True]
    holder.communicate()


@pytest.fixture
def postgres_url(postgres_server: tuple[str, str]) -> Iterator[str]:
    """A migrated database on PostgreSQL, where a turn is a lock of a connection."""
    with postgres.database(*postgres_server) as place:
        yield place


@pytest.mark.slow
def test_who_loses_the_turn_is_told_so_before_it_goes_on(postgres_url: str) -> None:
    with Store(postgres_url) as store, Store(postgres_url) as other:
        with store.turns.alone("publishing", unexpected) as check:
            check()
            postgres.cut_off(postgres_url)
            with other.turns.alone("publishing", unexpected) as check_other:
                check_other()
            with pytest.raises(
                StoreUnavailable, match=r"turn of publishing was lost .* run it again"
            ):
                check()
        with store.turns.alone("publishing", unexpected) as check:
            check()


@pytest.mark.slow
def test_who_loses_the_connection_while_waiting_for_a_turn_says_so(postgres_url: str) -> None:
    said: list[str] = []
    waits = threading.Event()

    def second() -> None:
        with (
            Store(postgres_url) as other,
            pytest.raises(StoreUnavailable) as caught,
            other.turns.alone("publishing", waits.set),
        ):
            pass
        said.append(str(caught.value))

    with Store(postgres_url) as store, store.turns.alone("publishing", unexpected) as check:
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(30)
        time.sleep(0.2)  # until it is in the queue
        postgres.cut_off(postgres_url, waiting=True)
        thread.join()
        check()
    assert "terminating connection" in said[0]


@pytest.mark.slow
def test_a_turn_outlasts_the_servers_patience_with_idle_sessions(postgres_url: str) -> None:
    engine = sa.create_engine(postgres_url)
    with engine.begin() as connection:
        name = sa.make_url(postgres_url).database
        connection.execute(sa.text(f"ALTER DATABASE {name} SET idle_session_timeout = '100ms'"))
    engine.dispose()
    with Store(postgres_url) as store, store.turns.alone("publishing", unexpected) as check:
        time.sleep(0.5)
        check()
