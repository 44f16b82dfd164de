"""One process at a time has a turn, and writers do not wait for it."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
from helpers.stores import NIGHT, add_bundles

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
