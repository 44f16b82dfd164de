"""The store, nights and moves against a plain model of what the documents promise.

Hypothesis plays a team: files come, go, change and are renamed; versions are promoted, rolled back
and moved by hand; nights run, are cut short and killed; MLflow is away or answers late. After every
step, what users read and what is left to do must equal the model's.

`PROMISES=300x60` plays 300 examples of 60 steps instead of a few.
"""

from __future__ import annotations

import csv
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import sqlalchemy as sa
import yaml
from helpers import fakes, postgres, stores
from helpers.fakes import INBOX, Clock, Engine, Inbox, Killed, Killer, Pool, Registry
from helpers.model import TAGS, File, Model, Tags, image_id, tags_of
from helpers.recount import check_counts
from helpers.stores import stored_predictions
from hypothesis import HealthCheck, assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from shoetagger import atomic
from shoetagger.config import params as parameters
from shoetagger.ingest import folder as real_inbox
from shoetagger.promotion import moves, versions
from shoetagger.promotion.compare import Comparison
from shoetagger.promotion.versions import PromotionError
from shoetagger.publishing import publication
from shoetagger.store import blocks, ledger, tables
from shoetagger.store.rows import MoveConflict, file_id_of
from shoetagger.store.store import Store
from shoetagger.store.tally import COUNTED as COUNTED_OF_RUNS
from shoetagger.tagging import run as tagging
from shoetagger.tagging import shard as tagging_shard
from shoetagger.tagging.pins import TaggingError
from shoetagger.tracking.connection import MLflowUnavailable

ROOT = Path(__file__).parents[2]
NAMES = [f"{letter}.jpg" for letter in "abcdefghijkl"]
CONTENTS = [*(f"picture {n}" for n in range(12)), "junk"]
GROUPS = list(TAGS)
TAG = parameters.load(ROOT / "params.yaml").tag

names = st.sampled_from(NAMES)
groups = st.sampled_from(GROUPS)
numbers = st.integers(1, 4)
fates = st.sampled_from(["answered"] * 4 + ["unanswered", "late", "lost", "killed", "killed late"])
kills = st.one_of(
    st.none(), st.tuples(st.sampled_from(["statement", "commit"]), st.integers(1, 12))
)
budgets = st.one_of(st.none(), st.integers(0, 12))  # images to read until the time is up


class Promises(RuleBasedStateMachine):
    """One installation, with files and moves by hypothesis; `model` says what must be."""

    open_store: Callable[[Path], Store]

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="model-"))
        self.store = type(self).open_store(self.folder)
        self.killer = Killer(self.store)
        self.clock, self.inbox, self.registry, self.model = Clock(), Inbox(), Registry(), Model()
        self.groups = GROUPS[:2]
        self.run: tagging.TaggingRun | None = None
        self.did: Counter[str] = Counter()  # what the run did so far, and below which tags it gave
        self.gave: Counter[str] = Counter()
        self.left: set[str] = set()  # names that it read and left
        self.interrupted = False  # whether a shard of the run was killed
        self.listed = False
        self.comparisons: list[Comparison] = []
        self.unanswered: set[tuple[str, str | None]] = set()  # group, digest
        self.past: list[tuple[datetime, dict[str, dict[str, Tags]]]] = []
        self.checked = False
        self.reader = sa.create_engine(self.store._database._engine.url)
        self.patches = [
            *(
                mock.patch.object(module, "datetime", self.clock.frozen)
                for module in (tagging, tagging_shard, versions, ledger, publication)
            ),
            mock.patch.object(real_inbox, "scan", self.inbox.scan),
            mock.patch.object(tagging, "_NOTED_AT_ONCE", 3),
            mock.patch.object(blocks, "BLOCK", 3),
            mock.patch.object(versions, "has_intact_bundle", self.registry.is_intact),
            mock.patch.object(publication, "Thumbnails", NoThumbnails),
            mock.patch.object(atomic, "_flush"),  # no machine goes down in this test
        ]
        for patch in self.patches:
            patch.start()
        # Not by mock.patch.dict, which would forget what is imported meanwhile: pandas cannot be
        # imported a second time.
        self.bundles = pytest.MonkeyPatch()
        self.bundles.setitem(sys.modules, "shoetagger.inference.bundle", BUNDLES)

    def teardown(self) -> None:
        self.bundles.undo()
        for patch in self.patches:
            patch.stop()
        self.reader.dispose()
        self.store.close()
        shutil.rmtree(self.folder)

    @initialize(contents=st.lists(st.sampled_from(CONTENTS), max_size=len(NAMES)))
    def begin_with_two_groups_and_a_night(self, contents: list[str]) -> None:
        for group in self.groups:
            self._promote(self._comparison(group, 1), "answered", None)
        self._changed()
        self.put(dict(zip(NAMES, contents, strict=False)))
        self.night(of=1, batch=3)

    def _changed(self) -> None:
        """Remember what is current now, and let time pass."""
        self.past.append(
            (
                self.clock.now,
                {
                    content: {g: t for g in GROUPS if (t := self.model.tags(content, g))}
                    for content in self.model.pictures
                },
            )
        )
        self.clock.tick()
        self.checked = False

    # What arrives
    @rule(some=st.dictionaries(names, st.sampled_from(CONTENTS), min_size=1))
    def put(self, some: dict[str, str]) -> None:
        for name, content in some.items():
            self.inbox.put(name, content)

    @precondition(lambda self: self.inbox.things)
    @rule(
        data=st.data(),
        change=st.sampled_from(["touch", "swap", "delete", "rename", "copy", "link"]),
        to=names,
        content=st.sampled_from(CONTENTS),
    )
    def change_a_file(self, data: st.DataObject, change: str, to: str, content: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.inbox.things)))
        thing = self.inbox.things[name]
        if change == "swap":
            if not thing.refused:
                self.inbox.swap(name, content)
            return
        if change == "touch":
            self.inbox.put(name, thing.content)
        elif change == "copy":
            self.inbox.put(to, thing.content)
        elif change == "link":
            self.inbox.put(name, "elsewhere", refused=True)
        else:
            del self.inbox.things[name]
        if change == "rename":
            self.inbox.things[to] = thing

    # What people do
    @precondition(lambda self: self.model.pictures)
    @rule(data=st.data(), kill=kills)
    def forget(self, data: st.DataObject, kill: Any) -> None:
        content = data.draw(st.sampled_from(sorted(self.model.pictures)))
        before = self._dump()
        forget = partial(self.store.files.forget, image_id(content), self.clock.now)
        if self._killed(kill, forget) and self._dump() == before:
            return
        self.model.forget(content)
        self._changed()

    @rule(name=st.one_of(st.none(), names))
    def retry(self, name: str | None) -> None:
        locators = None if name is None else [self.inbox.locator(name)]
        expected = self.model.retry(None if name is None else [name])
        assert self.store.files.retry(locators) == expected
        self._changed()

    @precondition(lambda self: self.model.pictures)
    @rule(data=st.data(), group=groups, withdraw=st.booleans())
    def correct(self, data: st.DataObject, group: str, withdraw: bool) -> None:
        content = data.draw(st.sampled_from(sorted(self.model.pictures)))
        tags = None if withdraw else TAGS[group][:1]
        self.store.corrections.correct(
            image_id(content), group, tags, by="me", why="so", now=self.clock.now
        )
        self.model.correct(content, group, tags)
        self._changed()

    @rule(rollbacks=st.integers(0, 2))
    def clean(self, rollbacks: int) -> None:
        """What users read stays, now and after each rollback that is kept; the past does not."""
        shown = {}
        for group in self.groups:
            chain = self.model.chain(group)
            for place in range(min(len(chain), 1 + rollbacks)):
                shown[group, place] = self._first_of(chain[place:])
        planned = self.store.cleaning.predictions(self.groups, rollbacks, dry_run=True)
        cleaned = self.store.cleaning.predictions(self.groups, rollbacks)
        left = self._predicted()
        assert left <= self.model.predictions
        assert sum(cleaned.values()) == len(self.model.predictions) - len(left)
        assert all(planned[digest] <= cleaned[digest] for digest in planned)
        for digest in self.store.cleaning.needed(self.groups, rollbacks):
            assert {c for c, d in left if d == digest} == {
                c for c, d in self.model.predictions if d == digest
            }
        self.model.predictions = left
        for (group, place), before in shown.items():
            assert self._first_of(self.model.chain(group)[place:]) == before
        assert not sum(self.store.cleaning.predictions(self.groups, rollbacks).values())
        self.past.clear()
        self._changed()

    def _first_of(self, chain: list[str]) -> dict[str, str]:
        """Return the bundle of each shown picture's tags."""
        return {
            content: first
            for content in self.model.shown()
            if (first := next((d for d in chain if (content, d) in self.model.predictions), None))
        }

    @rule(group=groups)
    def add_or_remove_a_group(self, group: str) -> None:
        """In params.yaml."""
        if group not in self.groups:
            self.groups = [g for g in GROUPS if g in {*self.groups, group}]
        elif len(self.groups) > 1:
            self.groups = [g for g in self.groups if g != group]

    # Which versions count
    @rule(group=groups, number=numbers)
    def compare(self, group: str, number: int) -> None:
        """A training run ends, and a person is asked; `approve` comes later, or never."""
        self.comparisons.append(self._comparison(group, number))

    @precondition(lambda self: self.comparisons)
    @rule(data=st.data(), fate=fates, kill=kills)
    def approve(self, data: st.DataObject, fate: str, kill: Any) -> None:
        place = data.draw(st.integers(0, len(self.comparisons) - 1))
        self._promote(self.comparisons.pop(place), fate, kill)
        self._changed()

    @rule(group=groups, number=numbers, fate=fates, kill=kills)
    def promote(self, group: str, number: int, fate: str, kill: Any) -> None:
        self._promote(self._comparison(group, number), fate, kill)
        self._changed()

    @rule(group=groups, number=numbers, back=st.booleans())
    def promote_slowly(self, group: str, number: int, back: bool) -> None:
        """While the promoter's request is on its way a night begins, and somebody rolls back."""
        comparison = self._comparison(group, number)
        digest = comparison.challenger
        idle = group not in self.model.pending and comparison.champion != digest
        assume(idle and not self.registry.away)

        def meanwhile() -> None:
            self.model.pending[group] = fakes_move("promote", digest, self.clock.now)
            self._reconcile([group], None)
            if back:
                self._roll_back(group, None, "answered", None)

        self.registry.meanwhile = meanwhile
        self.unanswered.add((group, digest))
        moves.promote(self.store, self.registry, comparison, None, by="me")
        self._changed()

    @rule(group=groups, to=st.one_of(st.none(), numbers), fate=fates, kill=kills)
    def roll_back(self, group: str, to: int | None, fate: str, kill: Any) -> None:
        self._roll_back(group, to, fate, kill)
        self._changed()

    @rule(group=groups, fate=st.sampled_from(["unanswered", "late", "lost", "killed"]))
    def roll_back_amid_a_promotion(self, group: str, fate: str) -> None:
        number = len(self.registry.known.get(group, [])) + 1
        self._promote(self._comparison(group, number), fate, None)
        self._changed()
        self._roll_back(group, None, "answered", None)
        self._changed()

    @rule(group=groups, number=st.one_of(st.none(), numbers))
    def move_by_hand(self, group: str, number: int | None) -> None:
        """In MLflow's pages; the next night writes it down."""
        digest = None if number is None else self._version(group, number).digest
        # Where a request for the same version may still arrive, nobody can tell the two apart.
        assume((group, digest) not in self.unanswered)
        self.registry.apply(group, number and str(number), author="hand")

    @rule(group=groups, other=groups)
    def point_the_alias_at_another_groups_model(self, group: str, other: str) -> None:
        """A version can be copied to another model: it is no version of this group."""
        if group != other and self.registry.known.get(other):
            self.registry.apply(group, other, author="wrong")

    @rule(group=groups, number=numbers)
    def lose_or_restore_a_bundle(self, group: str, number: int) -> None:
        """The files of a version are damaged, in the cache and in MLflow, or come back."""
        self.registry.lost ^= {self._version(group, number).digest}

    @rule(away=st.sampled_from([False, False, True]))
    def mlflow(self, away: bool) -> None:
        self.registry.away = away

    @precondition(lambda self: self.registry.late)
    @rule()
    def a_late_request_arrives(self) -> None:
        self.registry.deliver()

    @rule(kill=kills)
    def reconcile(self, kill: Any) -> None:
        self._reconcile(self.groups, kill)
        self._changed()

    # Nights
    @rule(kill=kills)
    def begin(self, kill: Any) -> None:
        """A night pins what is live; what is promoted later waits for the next one."""
        self._begin(kill)
        self._changed()

    @precondition(lambda self: self.run)
    @rule(kill=kills)
    def list_arrivals(self, kill: Any) -> None:
        self._list(kill)
        self._changed()

    @precondition(lambda self: self.run)
    @rule(of=st.integers(1, 3), budget=budgets, kill=kills, batch=st.integers(1, 3))
    def tag(self, of: int, budget: int | None, kill: Any, batch: int) -> None:
        self._tag(of, budget, kill, batch)
        self._changed()

    @rule(of=st.integers(1, 3), batch=st.integers(1, 3))
    def night(self, of: int, batch: int) -> None:
        self._night(of, None, None, batch)
        self.publish()

    @rule(of=st.integers(1, 3), budget=budgets, kill=kills, batch=st.integers(1, 3))
    def night_cut_short(self, of: int, budget: int | None, kill: Any, batch: int) -> None:
        self._night(of, budget, kill, batch)

    @rule(
        group=groups, some=st.dictionaries(names, st.sampled_from(CONTENTS)),
        of=st.integers(1, 3), budget=budgets, batch=st.integers(1, 2),
    )  # fmt: skip
    def night_after_a_new_version(
        self, group: str, some: dict[str, str], of: int, budget: int | None, batch: int
    ) -> None:
        if group not in self.groups:
            group = self.groups[0]
        number = len(self.registry.known.get(group, [])) + 1
        self._promote(self._comparison(group, number), "answered", None)
        self._changed()
        self.put(some)
        self._night(of, budget, None, batch)

    @rule(
        group=groups, contents=st.permutations(CONTENTS), of=st.integers(2, 3),
        budget=st.integers(1, 8),
    )  # fmt: skip
    def short_night_after_two_of_arrivals(
        self, group: str, contents: list[str], of: int, budget: int
    ) -> None:
        """The newest are tagged again first, in whatever shard's range they are."""
        half = len(NAMES) // 2
        for some in (slice(half), slice(half, None)):
            self.put(dict(zip(NAMES[some], contents[some], strict=False)))
            self._night(1, None, None, 3)
        self.night_after_a_new_version(group, {}, of, budget, 1)

    def _night(self, of: int, budget: int | None, kill: Any, batch: int) -> None:
        self._begin(None)
        if self.run:
            self._list(None)
            if self._tag(of, budget, kill, batch) == of:
                self._finish(whole=budget is None)
        self._changed()

    def _finish(self, *, whole: bool) -> None:
        """What is left is counted, and an arrival that nobody came to read is an alert."""
        assert self.run
        summary = tagging.finish(self.store, self.run, options=TAG, notify_url=None)
        waiting = [file for file in self.model.files.values() if file.state == "new"]
        backlog = self.model.backlog(self.run.pins).values()
        counts = summary.counts
        assert counts.items() >= self.did.items()
        assert counts["waiting"] == len(waiting)
        assert counts["backlog"] == max(map(len, backlog), default=0)
        unread = counts["waiting"] > counts["deferred"]
        assert not (whole and unread)
        assert any("arrivals are still" in alert for alert in summary.alerts) == unread

    @rule()
    def publish(self) -> None:
        """What is published is what is current, on every day."""
        document = yaml.safe_load((ROOT / "params.yaml").read_text())
        document["groups"] = {group: {"tags": list(TAGS[group])} for group in self.groups}
        (self.folder / "params.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
        published = self.folder / "published"
        publication.publish_changes(
            self.store,
            parameters.load(self.folder / "params.yaml"),
            published=published,
            inbox=INBOX,
        )
        expected = {
            image_id(content): {
                "day": row.day,
                "file": row.names[0],
                "copies": ", ".join(row.names[1:]),
                "stale": ", ".join(
                    g for g in self.groups if g in row.groups and row.groups[g].stale
                ),
                "corrected": ", ".join(
                    g for g in self.groups if g in row.groups and row.groups[g].corrected
                ),
                **{
                    g: ", ".join(row.groups[g].tags) if g in row.groups else "" for g in self.groups
                },
            }
            for content, row in self.model.rows(self.groups).items()
        }
        found: dict[str, dict[str, str]] = {}
        for sheet in (published / "csv").glob("*.csv"):
            with sheet.open(newline="", encoding="utf-8-sig") as file:
                for row in csv.DictReader(file):
                    picture = row["image_id"]
                    assert picture not in found, "on two days"
                    wanted = expected.get(picture, {})
                    found[picture] = {"day": sheet.stem} | {
                        key: row[key] for key in row if key in wanted
                    }
        assert found == expected
        with (published / "rejected.csv").open(newline="", encoding="utf-8-sig") as file:
            rejected = sorted(row["file"] for row in csv.DictReader(file))
        states = self.model.files.items()
        assert rejected == sorted(name for name, f in states if f.state == "rejected")

    @precondition(lambda self: self.past)
    @rule(data=st.data())
    def look_back(self, data: st.DataObject) -> None:
        """What was current at a time can be read for ever, unless it was forgotten."""
        place = data.draw(st.integers(0, len(self.past) - 1))
        when, then = self.past[place]
        for content, tags in then.items():
            kept = all(content in later for _, later in self.past[place:])
            if kept and content in self.model.pictures:
                found = self.store.current.tags_at(image_id(content), when)
                assert {g: self._plain(t) for g, t in found.items()} == tags, (content, when)

    # What must be
    @invariant()
    def what_users_read_is_what_was_promised(self) -> None:
        if self.checked:
            return
        for group in GROUPS:
            assert self.store.ledger.chain(group) == self.model.chain(group)
        rows = {
            row.image_id: (
                row.day,
                tuple(map(self.inbox.name, row.locators)),
                {group: self._plain(tags) for group, tags in row.groups.items()},
            )
            for row in self.store.current.rows(GROUPS)
        }
        expected = self.model.rows(GROUPS)
        assert rows == {
            image_id(content): (row.day, row.names, row.groups) for content, row in expected.items()
        }
        counts = self.store.current.counts(GROUPS)
        by_group = {g: (c.tagged, c.stale, c.untagged) for g, c in counts.groups.items()}
        assert {
            **{name: getattr(counts, name) for name in COUNTED}, "groups": by_group
        } == self.model.counts(GROUPS)  # fmt: skip
        self._check_work_left()
        check_counts(self.reader)
        self.checked = True

    def _check_work_left(self) -> None:
        pins = {g: live for g in self.groups if (live := self.model.live(g))}
        chains = {g: chain for g in GROUPS if len(chain := self.model.chain(g)) > 1}
        sets = [pins, {g: chain[1] for g, chain in chains.items()}]  # live, and before
        sets += [dict(self.run.pins)] if self.run else []
        for pinned in sets:
            left = self.model.backlog(pinned)
            work = self.store.predictions.count_work(pinned)
            waiting = [f for f in self.model.files.values() if f.state == "new"]
            assert work.new_files == len(waiting)
            assert dict(work.backlog) == {group: len(some) for group, some in left.items()}

    def _plain(self, tags: Any) -> Tags:
        if tags.digest is not None and not tags.corrected:
            assert tags.scores
        return Tags(tags.tags, tags.digest, tags.stale, tags.corrected)

    # How it is done
    def _killed(self, kill: tuple[str, int] | None, act: Callable[[], object]) -> bool:
        """Do something in a process that may be killed at a write; tell whether it was."""
        if kill:
            self.killer.arm(*kill)
        try:
            act()
        except Killed:
            return True
        finally:
            self.killer.disarm()
        return False

    def _version(self, group: str, number: int) -> Any:
        while len(self.registry.known.get(group, [])) < number:
            fakes.add_version(self.store, self.registry.register(group), self.clock.now)
        return self.registry.known[group][number - 1]

    def _comparison(self, group: str, number: int) -> Comparison:
        return Comparison.model_construct(
            group=group,
            challenger=self._version(group, number).digest,
            version=str(number),
            champion=self.store.ledger.live().get(group),
            passes=True,
            reasons=("for the test",),
            approval_reason=None,
            data_revision="revision",
            mlflow_run=None,
            moves=sum(move.state == "done" for move in self.store.ledger.history(group)),
        )

    def _promote(self, comparison: Comparison, fate: str, kill: Any) -> None:
        group, digest = comparison.group, comparison.challenger
        expected: list[type[BaseException]] = []
        steps = Steps(self, group, fate)
        if steps.complete_pending(expected):
            live = self.model.live(group) if not steps.done else steps.live()
            if live == digest:
                pass
            elif live != comparison.champion or len(steps.done) != comparison.moves:
                expected.append(MoveConflict)
            else:
                steps.move("promote", digest, expected)
        self._act(
            steps, kill, expected,
            lambda: moves.promote(self.store, self.registry, comparison, None, by="me"),
        )  # fmt: skip

    def _roll_back(self, group: str, to: int | None, fate: str, kill: Any) -> None:
        expected: list[type[BaseException]] = []
        steps = Steps(self, group, fate)
        chain, was_live = self.model.chain(group), self.model.was_live(group)
        target = None
        if to is not None:
            target = fakes.digest_of(group, to)
        elif len(chain) > 1:
            target = chain[1]
        if not chain or target is None or target == chain[0] or target not in was_live:
            expected.append(PromotionError)
        elif self.registry.away:
            expected.append(MLflowUnavailable)
        elif target in self.registry.lost:
            expected.append(PromotionError)
        else:
            # What was pending is overruled: nobody has seen it live.
            steps.move("rollback", target, expected)
        self._act(
            steps, kill, expected,
            lambda: moves.rollback(
                self.store, self.registry, group,
                bundles=self.folder, to=to and str(to), by="me", why="so",
            ),
        )  # fmt: skip

    def _act(
        self,
        steps: Steps,
        kill: Any,
        expected: list[type[BaseException]],
        act: Callable[[], object],
    ) -> None:
        self.registry.next_request = steps.fate
        killed = False
        with raises(expected):
            killed = self._killed(kill, act)
            expected[:] = [] if killed else expected
            steps.killed |= killed
        self.registry.next_request = "answered"
        self._adopt_moves(steps)

    def _adopt_moves(self, steps: Steps) -> None:
        """Check that the ledger is where it may be, and let the model follow."""
        group = steps.group
        history = self.store.ledger.history(group)
        done = [(move.kind, move.to_digest) for move in history if move.state == "done"]
        pending = [(move.kind, move.to_digest) for move in history if move.state == "pending"]
        allowed = steps.states if steps.killed else steps.states[-1:]
        assert (done, pending) in allowed
        known = len(self.model.moves.get(group, []))
        for kind, to in done[known:]:
            self.model.done(group, kind, to, self.clock.now)
        self.model.pending.pop(group, None)
        for kind, to in pending:
            self.model.pending[group] = fakes_move(kind, to, self.clock.now)
            self.unanswered.add((group, to))

    def _reconcile(self, chosen: list[str], kill: Any) -> None:
        all_steps = [self._steps_to_reconcile(group) for group in chosen]
        killed = self._killed(
            kill,
            lambda: moves.reconcile(self.store, self.registry, chosen, bundles=self.folder),
        )
        self._reconciled(all_steps, killed)

    def _steps_to_reconcile(self, group: str) -> Steps:
        steps = Steps(self, group, "answered")
        if self.registry.away:
            return steps
        if group in self.model.pending:
            steps.complete_pending([])
        elif self.registry.author.get(group) == "hand":
            named = self.registry.digest(group)
            if named != self.model.live(group) and named not in self.registry.lost:
                steps.move("remove" if named is None else "manual", named, [])
        return steps

    def _reconciled(self, all_steps: list[Steps], killed: bool) -> None:
        for steps in all_steps:
            steps.killed = killed
            self._adopt_moves(steps)
            if killed or self.registry.away:
                continue
            named, live = self.registry.digest(steps.group), self.model.live(steps.group)
            assert named == live or steps.group in self._with_a_wrong_alias()

    def _with_a_wrong_alias(self) -> set[str]:
        """Return the groups whose alias the nights do not follow, and say so."""
        author, digest = self.registry.author, self.registry.digest
        wrong = {group for group in GROUPS if author.get(group) == "wrong"}
        return wrong | {
            group
            for group in GROUPS
            if (author.get(group), digest(group)) != ("hand", self.model.live(group))
            and author.get(group) == "hand"
            and digest(group) in self.registry.lost
        }

    def _begin(self, kill: Any) -> None:
        self.run, self.listed = None, False
        self.did, self.gave, self.left = Counter(), Counter(), set()
        self.interrupted = False
        all_steps = [self._steps_to_reconcile(group) for group in self.groups]

        def act() -> None:
            with suppress(TaggingError):  # no champion, or no bundle
                self.run = tagging.begin(
                    self.store,
                    self.registry,
                    groups=self.groups,
                    bundles=self.folder,
                    kind="night",
                )

        killed = self._killed(kill, act)
        self._reconciled(all_steps, killed)
        if killed:
            return
        live = {g: digest for g in self.groups if (digest := self.model.live(g))}
        pinned = {g: digest for g, digest in live.items() if digest not in self.registry.lost}
        assert (dict(self.run.pins) if self.run else {}) == pinned
        if self.run:
            wrong = set() if self.registry.away else self._with_a_wrong_alias()
            expected = [g for g in self.groups if g in wrong | live.keys() - pinned.keys()]
            assert sorted(expected) == sorted(self._named_in(self.run.alerts))

    def _named_in(self, alerts: tuple[str, ...]) -> set[str]:
        return {next(g for g in GROUPS if alert.startswith(g)) for alert in alerts}

    def _list(self, kill: Any) -> None:
        """A whole listing: what is not in it is gone."""
        assert self.run
        run, now = self.run, self.clock.now
        options: Any = SimpleNamespace(alert_from=4, max_missing=0.9)
        targets = {
            name: self.model.noted(name, thing, now) for name, thing in self.inbox.things.items()
        }
        missing = [n for n, f in self.model.files.items() if n not in targets and f.state != "gone"]
        many = len(missing) >= 4 or not targets
        unmounted = many and len(missing) > 0.9 * (len(missing) + len(targets))
        expected: list[type[BaseException]] = [real_inbox.InboxError] if unmounted else []

        def act() -> None:
            tagging.find_arrivals(self.store, INBOX, run, options=options, state=self.folder)

        killed = False
        with raises(expected):
            killed = self._killed(kill, act)
            expected[:] = [] if killed else expected
        for name in () if unmounted else missing:
            targets[name] = self.model.missed(name)
        before = dict(self.model.files)
        self._adopt_files({n: [f] for n, f in targets.items()}, may_lack=killed)
        noted = [n for n in self.inbox.things if self.model.files.get(n) != before.get(n)]
        self.did["new"] += len(noted)
        self.did["rejected"] += sum(self.inbox.things[name].refused for name in noted)
        if not unmounted:
            seen = self.store.runs.find(run.run_id).counts["seen"]
            assert seen == len(self.inbox.things) or (killed and seen == self.did["seen"])
            self.did["seen"] = seen
        self._check_did()

    def _tag(self, of: int, budget: int | None, kill: Any, batch: int) -> int:
        """One slot: the shards one after the other, until the budget that they share is spent.

        Returns how many of them ended.
        """
        ended = 0
        assert self.run
        run, model = self.run, self.model
        pool, engine = Pool(self.inbox), Engine(dict(run.pins), batch)
        params = SimpleNamespace(
            tag=SimpleNamespace(batch_size=1, settle_seconds=0, budget_minutes=1)
        )
        spent = datetime.max.timestamp()
        clock = SimpleNamespace(
            monotonic=lambda: spent if budget is not None and pool.read >= budget else 0.0
        )
        with self.reader.begin() as connection:  # a run may be given time more than once
            connection.execute(sa.update(tables.handed_out).values(spent_seconds=0.0))

        def act() -> None:
            nonlocal ended
            for shard in range(of):
                tagging_shard.tag_shard(
                    self.store, engine, run, shard, of, params=params, inbox=INBOX
                )
                ended += 1

        with (
            mock.patch.object(tagging_shard, "decode_pool", return_value=pool),
            mock.patch.object(tagging_shard, "time", clock),
        ):
            killed = self._killed(kill, act)
        whole = budget is None and not killed
        self.interrupted |= killed

        before = dict(model.files)
        left = model.backlog(run.pins)
        since = {content: picture.since for content, picture in model.pictures.items()}
        for identity, digest in engine.calls:
            known = [c for c, d in model.predictions if d == digest and image_id(c) == identity]
            assert not known, f"{known} run through {digest} again"

        # Arrivals
        candidates: dict[str, list[File]] = {}
        for name, file in before.items():
            if file.state == "new":
                candidates[name] = [model.settled(name, self.inbox.things.get(name))]
            elif file.state == "tagged" and name not in self.inbox.things:
                candidates[name] = [file, model.missed(name)]  # found out by the backlog, or not
            elif other := model.reopened(name, self.inbox.things.get(name), self.clock.now):
                candidates[name] = [file, model.read(name, other, self.inbox.things[name])]
                candidates[name] += [] if whole else [other]
        self._adopt_files(candidates, may_lack=not whole)
        waiting = {n for n, (*_, f) in candidates.items() if model.files[n] != f}
        waiting = {n for n in waiting if before[n].state == "new"}

        # Predictions
        predicted = self._predicted()
        assert predicted >= model.predictions
        new = predicted - model.predictions
        assert all(digest in run.pins.values() for _, digest in new)
        assert all(content in model.pictures for content, _ in new)
        settled = {
            model.files[n].content
            for n in candidates
            if model.files[n] != before[n] and model.files[n].state == "tagged"
        }
        for content in settled:
            assert all((content, digest) in predicted for digest in run.pins.values())
        model.predictions = predicted
        again = {content for content, _ in new if content not in settled}
        if again:
            assert not waiting, f"{again} tagged again before {waiting}"
        could = {
            content: [
                (thing := self.inbox.things.get(n)) is not None and thing.content == content
                for n in sorted(before)
                if (before[n].content, before[n].state) == (content, "tagged")
            ]
            for some in left.values()
            for content in some
        }
        undone = {c for c in could if any((c, d) not in predicted for d in run.pins.values())}
        assert not (whole and any(any(could[c]) for c in undone))
        undone = {c for c in undone if could[c][:1] == [True]}  # further names are tried last
        # What a killed shard had drawn is taken up once all else of the run is drawn.
        if again and undone and not self.interrupted:
            assert min(since[c] for c in again) >= max(since[c] for c in undone), "newest first"
        # An arrival that was tagged again first, and then found under a name read anew.
        ambiguous = {c for c, _ in new if c in settled and any(c in some for some in left.values())}
        self._count_tagged(before, len(again), len(ambiguous), whole=whole)
        return ended

    def _count_tagged(
        self, before: dict[str, File], again: int, ambiguous: int, *, whole: bool
    ) -> None:
        """Count what became of files that waited, or turned out to hold something else."""
        assert self.run
        for name, file in self.model.files.items():
            if file == before[name] or file.state not in ("tagged", "rejected"):
                continue
            self.did[file.state] += 1
            self.left.discard(name)
            for group, digest in self.run.pins.items() if file.state == "tagged" else ():
                self.gave.update(tags_of(image_id(file.content or ""), digest, group))
        found = self.store.runs.find(self.run.run_id).counts["retagged"] - self.did["retagged"]
        assert again <= found <= again + ambiguous
        self.did["retagged"] += found
        with self.reader.connect() as connection:
            query = sa.select(tables.deferred_files.c.file_id)
            query = query.where(tables.deferred_files.c.run_id == self.run.run_id)
            rows = set(connection.execute(query).scalars())
        left = {name for name in NAMES if file_id_of(self.inbox.locator(name)) in rows}
        waiting = {name for name, file in self.model.files.items() if file.state == "new"}
        gone = {name for name, file in self.model.files.items() if file.state == "gone"}
        assert self.left - gone <= left <= self.left | waiting
        assert left >= waiting or not whole
        self.left = left
        self.did["deferred"] = len(left)
        self._check_did()

    def _check_did(self) -> None:
        """The run's counts are what the store has seen it do, whatever was killed or repeated."""
        assert self.run
        row = self.store.runs.find(self.run.run_id)
        assert {name: row.counts[name] for name in COUNTED_OF_RUNS} == {
            name: self.did[name] for name in COUNTED_OF_RUNS
        }
        pinned = [tag for group in self.run.pins for tag in TAGS[group]]
        shown = {tag: (self.gave[tag], self.did["tagged"]) for tag in pinned}
        assert (row.rates or {}) == (shown if self.did["tagged"] else {})

    def _predicted(self) -> set[tuple[str, str]]:
        """Return content and digest of every prediction in the store."""
        contents = {image_id(content): content for content in CONTENTS}
        with self.reader.connect() as connection:
            found = connection.execute(stored_predictions()).all()
        return {(contents[row.image_id], row.digest) for row in found}

    def _adopt_files(self, candidates: dict[str, list[File]], *, may_lack: bool) -> None:
        """Check that files became what they must, or may be as before; the model follows."""
        firsts = self._first_seen()
        for name, allowed in candidates.items():
            before = self.model.files.get(name)
            found = self._find(name)
            options = [*allowed, before] if may_lack else allowed
            assert found in options, (name, before)
            if found is not None and found != before:
                first = None
                if found.state == "tagged" and found.content not in self.model.pictures:
                    first = firsts[image_id(found.content or "")]
                self.model.become(name, found, self.clock.now, first)
        assert {n for n in NAMES if self._find(n)} == set(self.model.files)

    def _find(self, name: str) -> File | None:
        row = self.store.files.find(self.inbox.locator(name))
        if row is None:
            return None
        contents = {image_id(content): content for content in [*CONTENTS, "elsewhere"]}
        content = contents[row.image_id] if row.image_id else None
        return File(row.state, row.token, content, row.first_seen, row.changed_at)

    def _first_seen(self) -> dict[str, datetime]:
        query = sa.select(tables.images.c.image_id, tables.images.c.first_seen)
        with self.reader.connect() as connection:
            return dict(iter(connection.execute(query)))

    def _dump(self) -> dict[str, list[Any]]:
        with self.reader.connect() as connection:
            return {
                name: sorted(map(tuple, connection.execute(sa.select(table))), key=repr)
                for name, table in tables.metadata.tables.items()
            }


COUNTED = ("files", "tagged", "rejected", "waiting", "gone", "images")
BUNDLES = ModuleType("shoetagger.inference.bundle")  # the real one imports torch
BUNDLES.load_bundle = fakes.load_bundle  # type: ignore[attr-defined]


def fakes_move(kind: str, to: str | None, at: datetime) -> Any:
    from helpers.model import Move

    return Move(kind, to, at)


class Steps:
    """The states of one group's ledger that an act goes through; killed, it ends in one of them."""

    def __init__(self, machine: Promises, group: str, fate: str) -> None:
        self.group, self.fate = group, fate
        self.killed = False
        self._away = machine.registry.away
        self._fate = fate
        self.done = [(move.kind, move.to) for move in machine.model.moves.get(group, [])]
        pending = machine.model.pending.get(group)
        self.pending = [(pending.kind, pending.to)] if pending else []
        self.states = [(list(self.done), list(self.pending))]

    def live(self) -> str | None:
        return self.done[-1][1] if self.done else None

    def complete_pending(self, expected: list[type[BaseException]]) -> bool:
        """Tell whether nothing is in the way of the next step."""
        return not self.pending or self._request(expected)

    def move(self, kind: str, to: str | None, expected: list[type[BaseException]]) -> bool:
        self.pending = [(kind, to)]
        self._note()
        return self._request(expected)

    def _request(self, expected: list[type[BaseException]]) -> bool:
        fate, self._fate = self._fate, "answered"
        if self._away or fate in ("unanswered", "late", "lost"):
            expected.append(MLflowUnavailable)
            return False
        if fate.startswith("killed"):
            self.killed = True
            return False
        self.done += self.pending
        self.pending = []
        self._note()
        return True

    def _note(self) -> None:
        self.states.append((list(self.done), list(self.pending)))


@contextmanager
def raises(expected: list[type[BaseException]]) -> Iterator[None]:
    """Expect the last of these errors; the block may empty the list where it was killed."""
    try:
        yield
    except tuple(expected or [NeverRaised]):
        return
    assert not expected, f"{expected[-1]} was not raised"


class NeverRaised(Exception):  # noqa: N818 - stands for no exception at all
    """Nobody raises it."""


class NoThumbnails:
    """Publishing without images."""

    made = 0

    def __init__(self, *_: object) -> None:
        pass

    def __enter__(self) -> NoThumbnails:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def make(self, image_ids: Iterator[str]) -> set[str]:
        return set(image_ids)


def profile() -> settings:
    examples, steps = os.environ.get("PROMISES", "15x25").split("x")
    return settings(
        max_examples=int(examples),
        stateful_step_count=int(steps),
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )


@pytest.mark.timeout(7200)
@pytest.mark.slow
def test_store_nights_and_moves_are_as_promised() -> None:
    class OnSqlite(Promises):
        @staticmethod
        def open_store(folder: Path) -> Store:
            store = Store(stores.migrated(f"sqlite:///{folder / 'store.db'}"))
            sa.event.listen(store._database._engine, "connect", do_not_sync)
            return store

    run_state_machine_as_test(OnSqlite, settings=profile())


def do_not_sync(connection: Any, _: object) -> None:
    connection.execute("PRAGMA synchronous=OFF")


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_the_same_on_postgresql(postgres_server: tuple[str, str]) -> None:
    server, template = postgres_server
    with postgres.database(server, template) as url:

        class OnPostgres(Promises):
            @staticmethod
            def open_store(_: Path) -> Store:
                store = Store(url)
                with store._database.writing() as connection:
                    for table in reversed(tables.metadata.sorted_tables):
                        connection.execute(sa.delete(table))
                    connection.execute(sa.insert(tables.last_seq), {"seq": 0})
                return store

        run_state_machine_as_test(OnPostgres, settings=profile())
