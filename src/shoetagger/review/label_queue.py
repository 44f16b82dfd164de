"""The queue "next to label" over the published tables and what people have said since."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..config.operations import Queue
from ..config.places import Place
from ..config.recipe import Group
from ..inference.bundle import load_bundle
from ..inference.decision import UNCALIBRATED
from ..network.layers import ModelError
from ..store.rows import WHOLE_IMAGE, BundleVersion
from ..store.store import Store
from .choosing import Choice, Objection, Pool, TagFacts, choose, fixed_ids
from .day_tables import DayTables

_KEPT = 8  # choices, of people who passed other pictures on


class LabelQueue:
    """Chooses pictures for any number of threads; tables are read again when they change."""

    def __init__(self, store: Store, published: Place, bundles: Path) -> None:
        self._store, self._bundles = store, bundles
        self._tables = DayTables(published, _unchecked)
        self._lock = threading.Lock()
        self._checked: set[str] = set()  # since the tables were written, as far as was asked
        self._made: OrderedDict[frozenset[str], tuple[object, Choice]] = OrderedDict()

    def choose(
        self,
        groups: Mapping[str, Group],
        options: Queue,
        title: Callable[[str], str] = str,
        *,
        exclusive: Sequence[Sequence[str]] = (),
        skipped: frozenset[str] = frozenset(),
    ) -> Choice:
        """Return the pictures to check next; the same ones until tables or corrections change.

        `title` returns what people read for a tag; `exclusive` are sets of tags of which a picture
        can have one at most. The pictures that are `skipped` are not asked for.
        """
        with self._lock:
            live = self._store.ledger.live()
            last = self._store.corrections.last()
            facts = self._facts(groups, live, title, exclusive)
            compared = self._store.comparisons.latest()
            self._tables.refresh(groups)
            stamps = self._tables.stamps
            known = (
                stamps, tuple(groups.items()), options, facts.tags, facts.exclusive, live, last,
                compared,
            )  # fmt: skip
            if skipped not in self._made or self._made[skipped][0] != known:
                objections = self._objections(groups, live, title)
                made = self._choose(groups, options, facts, objections, skipped)
                self._made[skipped] = known, made
                while len(self._made) > _KEPT:
                    self._made.popitem(last=False)
            return self._made[skipped][1]

    def _choose(
        self,
        groups: Mapping[str, Group],
        options: Queue,
        facts: TagFacts,
        objections: Mapping[str, Objection],
        skipped: frozenset[str],
    ) -> Choice:
        pool = _together(list(self._tables.contents.values()), len(facts.tags))
        self._checked = self._checked_of(self._checked, groups)
        while True:
            rest = _without(pool, self._checked | skipped)
            vectors = self._store.vectors.of
            choice = choose(rest, facts, options, vectors, objections=objections)
            new = self._checked_of((picture.image_id for picture in choice.pictures), groups)
            if not new:
                return choice
            self._checked |= new

    def _checked_of(self, image_ids: Iterable[str], groups: Mapping[str, Group]) -> set[str]:
        """Return the pictures with a verdict, or with a correction in all groups, in force."""
        in_force = self._store.corrections.in_force(sorted(image_ids))
        judged = {image_id for image_id, group in in_force if group == WHOLE_IMAGE}
        corrected = Counter(image_id for image_id, group in in_force if group in groups)
        return judged | {i for i, number in corrected.items() if number == len(groups)}

    def _facts(
        self,
        groups: Mapping[str, Group],
        live: Mapping[str, str],
        title: Callable[[str], str],
        exclusive: Sequence[Sequence[str]],
    ) -> TagFacts:
        """Return the thresholds and positives of the live versions.

        The positives that people gave since the last collection count too. A tag that no version
        has learned yet has none, and the usual threshold. A version that was trained without
        cross-validation does not say how many it learned from.
        """
        limits: dict[str, float] = {}
        uncounted: set[str] = set()
        positives: Counter[str] = Counter()
        for group in groups:
            try:
                bundle = load_bundle(self._bundles / live[group])
            except (KeyError, ModelError, OSError):
                continue
            limits |= dict(zip(bundle.tags, bundle.thresholds, strict=True))
            positives.update(dict(zip(bundle.tags, bundle.support, strict=True)))
            if not any(bundle.support):
                uncounted.update(bundle.tags)
        corrections = self._store.corrections
        for row in corrections.in_force(corrections.uncollected()).values():
            if row.collected_in is None:
                positives.update(row.tags)
        tags = tuple(tag for group in groups.values() for tag in group.tags)
        return TagFacts(
            tuple(map(title, tags)),
            np.array([limits.get(tag, UNCALIBRATED) for tag in tags]),
            np.array([positives[tag] for tag in tags]),
            tuple(
                tuple(map(tags.index, known))
                for names in exclusive
                if len(known := [name for name in names if name in tags]) > 1
            ),
            frozenset(place for place, tag in enumerate(tags) if tag in uncounted),
        )

    def _objections(
        self, groups: Mapping[str, Group], live: Mapping[str, str], title: Callable[[str], str]
    ) -> dict[str, Objection]:
        """Return what each group's latest challenger would change, by image id.

        A version that was compared with an earlier champion is none any more.
        """
        tags = [tag for group in groups.values() for tag in group.tags]
        versions = {v.digest: v for v in self._store.ledger.versions()}
        found: dict[str, Objection] = {}
        seen: set[str] = set()
        for digest, compared_at in self._store.comparisons.latest():
            version = versions.get(digest)
            if version is None or version.group in seen:
                continue
            seen.add(version.group)
            moves = self._store.ledger.history(version.group)
            moved_since = any(m.done_at is not None and m.done_at > compared_at for m in moves)
            if version.group not in groups or digest == live.get(version.group) or moved_since:
                continue
            kept = self._store.comparisons.get(digest)
            for change in kept.changes if kept else ():
                gained = [tag for tag in change.after if tag not in change.before]
                lost = [tag for tag in change.before if tag not in change.after]
                changed = tuple(tags.index(tag) for tag in (*gained, *lost) if tag in tags)
                if changed:
                    words = _objection(version, list(map(title, gained)), list(map(title, lost)))
                    found.setdefault(change.image_id, Objection(changed, words))
        return found


def sized(options: Queue, size: int | None) -> Queue:
    """Return the options with another number of pictures, if one is given."""
    return options if size is None else replace(options, size=size)


def _objection(version: BundleVersion, gained: Sequence[str], lost: Sequence[str]) -> str:
    """Return in words what a challenger says of a picture otherwise than the live version."""
    words = [" and ".join(gained)] * bool(gained) + ["not " + " or ".join(lost)] * bool(lost)
    return f"version {version.version} of {version.group}, not live, says {', '.join(words)}"


def _unchecked(table: pq.ParquetFile, groups: Mapping[str, Group]) -> Pool:
    """Return the rows of a table that have a score of some group which no person has corrected."""
    there = set(table.schema_arrow.names)
    wanted = [f"{name}_{what}" for name in groups for what in ("corrected", "unsure")]
    wanted += [f"score_{tag}" for group in groups.values() for tag in group.tags]
    rows = table.read(["image_id", *(name for name in wanted if name in there)])
    columns, checked, far = [], np.ones(len(rows), bool), np.zeros(len(rows), bool)
    for name, group in groups.items():
        corrected = _flags(rows, f"{name}_corrected")
        checked &= corrected
        far |= _flags(rows, f"{name}_unsure")
        for tag in group.tags:
            scores = np.full(len(rows), np.nan, np.float32)
            if f"score_{tag}" in rows.column_names:
                scores = rows[f"score_{tag}"].to_numpy().astype(np.float32)
            columns.append(np.where(corrected, np.float32(np.nan), scores))
    scores = np.stack(columns, axis=1)
    kept = ~checked & ~np.isnan(scores).all(axis=1)
    image_ids = rows["image_id"].to_numpy().astype("S64")
    return Pool(image_ids, scores, far).where(kept)


def _flags(rows: pa.Table, column: str) -> np.ndarray:
    """Return a column of yes and no (N,); a table of before it was there has no yes."""
    if column not in rows.column_names:
        return np.zeros(len(rows), bool)
    return np.asarray(rows[column].fill_null(False).to_numpy())


def _together(pools: list[Pool], tags: int) -> Pool:
    empty = Pool(np.zeros(0, "S64"), np.zeros((0, tags), np.float32), np.zeros(0, bool))
    every = [empty, *pools]
    return Pool(
        np.concatenate([pool.image_ids for pool in every]),
        np.concatenate([pool.scores for pool in every]),
        np.concatenate([pool.far for pool in every]),
    )


def _without(pool: Pool, image_ids: set[str]) -> Pool:
    if not image_ids:
        return pool
    return pool.where(~np.isin(pool.image_ids, fixed_ids(sorted(image_ids))))
