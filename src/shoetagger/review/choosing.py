"""Chooses which pictures people should check next, from what is known already; no model runs.

Some are drawn at random: a part of all pictures is reserved for that by their ids, which are
hashes, and nothing else is ever chosen from that part. So these are a fair sample of what arrives,
however the others are chosen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from more_itertools import chunked

from ..config.operations import Queue

# Where a person met a picture, as the journal of corrections has it.
CHOSEN, DRAWN = "queue", "random"

# Scores nearer to 0 or 1 count as this near: a model is never that sure.
_SUREST = 0.002
_ROWS_AT_ONCE = 50_000
_COMPARED_AT_ONCE = 64
# Pictures that are looked at, per picture wanted, for one that is unlike those chosen before.
_LOOKED_AT = 50
# Tags that a reason names, and how far from its threshold, in log-odds, a score may be for that.
_NAMED, _UNSURE_WITHIN = 2, 1.0


@dataclass(frozen=True)
class Pool:
    """Tagged pictures that nobody has checked.

    `image_ids` (N,) are bytes; `scores` (N, tags) are in 0..1, and NaN where no version gave a
    score, or a person has said what is right. `far` (N,) tells which are far from all labelled
    pictures: most of those show no shoe.
    """

    image_ids: np.ndarray
    scores: np.ndarray
    far: np.ndarray

    def where(self, kept: np.ndarray) -> Pool:
        """Return the pictures of a mask (N,)."""
        return Pool(self.image_ids[kept], self.scores[kept], self.far[kept])


@dataclass(frozen=True)
class TagFacts:
    """What the live versions have of each tag: a threshold, and the positives they learned from.

    `tags` are the words for people; `exclusive` are sets of tags, by their places, of which a
    picture can have one at most. `uncounted` are the places of tags whose versions do not say how
    many positives they learned from: what is counted there is too little.
    """

    tags: tuple[str, ...]
    thresholds: np.ndarray
    positives: np.ndarray
    exclusive: tuple[tuple[int, ...], ...] = ()
    uncounted: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Objection:
    """What a challenger says of a picture, in words, and the places of the tags that it changes."""

    tags: tuple[int, ...]
    reason: str


@dataclass(frozen=True)
class QueuedPicture:
    """A picture to check: why, in words, and whether it was chosen or drawn (its `origin`)."""

    image_id: str
    origin: str
    reason: str


@dataclass(frozen=True)
class Choice:
    """Pictures in the order in which to check them; `notes` say which tags were not asked for."""

    pictures: tuple[QueuedPicture, ...]
    notes: tuple[str, ...]


NO_OBJECTIONS: Mapping[str, Objection] = MappingProxyType({})

# Image ids -> vectors of length 1, of those that have one: alike pictures have a cosine near 1.
Vectors = Callable[[Sequence[str]], Mapping[str, np.ndarray]]

# Scores (N, tags) -> how much the models could learn from each picture, (N,).
Interest = Callable[[np.ndarray, TagFacts], np.ndarray]


def origin_of(image_id: str, random: float) -> str:
    """Return what a picture of the queue is by its id: chosen, or drawn at random."""
    return DRAWN if bool(_reserved(np.array([image_id.encode()]), random)[0]) else CHOSEN


def interest(scores: np.ndarray, facts: TagFacts) -> np.ndarray:
    """Return how unsure the models are of the one tag that they are most unsure of, (N,)."""
    worth: np.ndarray = unsureness(scores, facts).max(axis=1)
    return worth


def unsureness(scores: np.ndarray, facts: TagFacts) -> np.ndarray:
    """Return how unsure the models are of each tag, more for tags that they have seen little of.

    That is the entropy of a score as far as its threshold is away in log-odds, in bits, times
    1/sqrt(positives).
    """
    distance = np.abs(_log_odds(scores) - _log_odds(facts.thresholds))
    odds = np.exp(-distance)
    entropy = np.log1p(odds) + distance * odds / (1 + odds)  # in nats
    weight = 1 / (np.log(2) * np.sqrt(np.maximum(facts.positives, 1)))
    worth: np.ndarray = np.nan_to_num(entropy * weight.astype(np.float32))
    return worth


def contradictions(scores: np.ndarray, facts: TagFacts) -> dict[int, tuple[int, ...]]:
    """Return the rows of scores (N, tags) with tags that exclude each other, with those tags."""
    found: dict[int, tuple[int, ...]] = {}
    for exclusive in facts.exclusive:
        places = np.array(exclusive)
        passed = scores[:, places] >= facts.thresholds[places]
        for row in np.flatnonzero(passed.sum(axis=1) > 1).tolist():
            found.setdefault(row, tuple(places[passed[row]].tolist()))
    return found


def no_vectors(_: Sequence[str]) -> Mapping[str, np.ndarray]:
    """Know no vector: no two pictures count as nearly equal."""
    return {}


def choose(
    pool: Pool,
    facts: TagFacts,
    options: Queue,
    vectors: Vectors = no_vectors,
    by: Interest = interest,
    objections: Mapping[str, Objection] = NO_OBJECTIONS,
) -> Choice:
    """Return up to `options.size` pictures to check next.

    A share of `options.random` is drawn from the reserved part. Of the others, a share of
    `options.rare` are the likeliest pictures of the tags with the fewest positives, the rest those
    that interest most; no two chosen ones have a cosine above `options.max_cosine`, and none is far
    from all labelled ones. A tag that excludes another one of the picture, or to which a challenger
    objects (`objections`, by image id), interests as if it were at its threshold. What runs out is
    made up for by the rest. The same pictures give the same choice.
    """
    reserved = _reserved(pool.image_ids, options.random)
    drawn = iter(np.sort(pool.image_ids[reserved]).tolist())
    rest = pool.where(~reserved & ~pool.far)
    chooser = _Chooser(rest, facts, options, vectors, by, objections)
    rare, unsure = chooser.rare(), chooser.unsure()
    at_random = (QueuedPicture(i.decode(), DRAWN, "drawn at random") for i in drawn)
    pictures: list[QueuedPicture] = []
    chosen = 0
    while len(pictures) < options.size:
        if _is_due(len(pictures), options.random):
            order = [at_random, unsure, rare]
        elif _is_due(chosen, options.rare):
            order = [rare, unsure, at_random]
        else:
            order = [unsure, rare, at_random]
        found = next((one for source in order if (one := next(source, None))), None)
        if found is None:
            break
        chosen += found.origin == CHOSEN
        pictures.append(found)
    return Choice(tuple(pictures), tuple(chooser.notes))


class _Chooser:
    """Chooses from pictures that are not reserved, each once, none like one chosen before."""

    def __init__(
        self,
        pool: Pool,
        facts: TagFacts,
        options: Queue,
        vectors: Vectors,
        by: Interest,
        objections: Mapping[str, Objection],
    ) -> None:
        self._pool, self._facts, self._options = pool, facts, options
        self._vectors_of, self._interest = vectors, by
        self._objections = objections
        self._chosen: set[int] = set()
        self._vectors: list[np.ndarray] = []  # of the chosen ones
        # As if the pictures asked for were what they look like.
        self._positives = facts.positives.astype(np.float64)
        self.notes: list[str] = []

    def rare(self) -> Iterator[QueuedPicture]:
        """Yield, in turns, the likeliest picture of the tag with the fewest positives.

        A tag is asked for only while its next picture has `min_probability`, at most `per_tag`
        times.
        """
        tags = range(len(self._facts.tags))
        queues = {tag: self._likeliest(tag) for tag in tags}
        times: Counter[int] = Counter()
        while queues:
            tag = min(queues, key=lambda tag: self._positives[tag])
            row = next(queues[tag], None) if times[tag] < self._options.per_tag else None
            if row is None:
                del queues[tag]
                self.notes.append(self._why_not(tag, times[tag]))
                continue
            times[tag] += 1
            reason = f"may show {self._facts.tags[tag]} ({self._pool.scores[row, tag]:.2f})"
            if tag not in self._facts.uncounted:
                reason += f", learned from {int(self._facts.positives[tag])} so far"
            yield self._take(row, reason)

    def unsure(self) -> Iterator[QueuedPicture]:
        """Yield the pictures from which the models could learn most."""
        parts = range(0, len(self._pool.scores), _ROWS_AT_ONCE)
        worth = [
            self._interest(self._pool.scores[start : start + _ROWS_AT_ONCE], self._facts)
            for start in parts
        ]
        total = np.concatenate([np.zeros(0), *worth])
        reasons: dict[int, str] = {}
        for row, tags, reason in self._doubted():
            as_at_threshold = 1 / np.sqrt(np.maximum(self._facts.positives[list(tags)], 1)).min()
            if as_at_threshold >= total[row]:
                total[row], reasons[row] = as_at_threshold, reason
        for row in self._unlike(_largest(total, self._options.size * _LOOKED_AT)):
            if total[row] > 0:
                yield self._take(row, reasons.get(row) or self._unsure_of(row))

    def _doubted(self) -> Iterator[tuple[int, tuple[int, ...], str]]:
        """Yield rows with tags that cannot all be right, those tags, and why."""
        for row, tags in contradictions(self._pool.scores, self._facts).items():
            both = " and ".join(
                f"{self._facts.tags[tag]} ({self._pool.scores[row, tag]:.2f})" for tag in tags
            )
            yield row, tags, f"{both} exclude each other"
        if not self._objections:
            return
        ids = fixed_ids(list(self._objections))
        for row in np.flatnonzero(np.isin(self._pool.image_ids, ids)).tolist():
            objection = self._objections[self._id(row)]
            if not np.isnan(self._pool.scores[row, list(objection.tags)]).all():
                yield row, objection.tags, objection.reason

    def _likeliest(self, tag: int) -> Iterator[int]:
        scores = self._pool.scores[:, tag]
        likely = np.flatnonzero(scores >= self._options.min_probability)
        return self._unlike(likely[_largest(scores[likely], self._options.per_tag * _LOOKED_AT)])

    def _unlike(self, rows: np.ndarray) -> Iterator[int]:
        """Take the rows that are unlike every picture chosen until then; yield those."""
        for some in chunked(rows.tolist(), _COMPARED_AT_ONCE):
            vectors = self._vectors_of([self._id(row) for row in some])
            for row in some:
                vector = vectors.get(self._id(row))
                if row not in self._chosen and not self._is_like_a_chosen_one(vector):
                    if vector is not None:
                        self._vectors.append(vector)
                    yield row

    def _is_like_a_chosen_one(self, vector: np.ndarray | None) -> bool:
        if vector is None or not self._vectors:
            return False
        return bool((np.stack(self._vectors) @ vector > self._options.max_cosine).any())

    def _take(self, row: int, reason: str) -> QueuedPicture:
        self._chosen.add(row)
        self._positives += np.nan_to_num(self._pool.scores[row])
        return QueuedPicture(self._id(row), CHOSEN, reason)

    def _id(self, row: int) -> str:
        return str(self._pool.image_ids[row].decode())

    def _why_not(self, tag: int, times: int) -> str:
        name, least = self._facts.tags[tag], self._options.min_probability
        if times == self._options.per_tag:
            return f"{name}: asked for {times} times, which is the most (labels.queue.per_tag)"
        more = "no further picture" if times else "no picture"
        return (
            f"{name}: {more} has a probability of {least:g} or more (labels.queue.min_probability)"
        )

    def _unsure_of(self, row: int) -> str:
        scores, limits = self._pool.scores[row], self._facts.thresholds
        worth = unsureness(scores[None], self._facts)[0]
        apart = np.abs(_log_odds(scores) - _log_odds(limits))
        best = [tag for tag in np.argsort(-worth)[:_NAMED].tolist() if worth[tag] > 0]
        near = [tag for tag in best if apart[tag] < _UNSURE_WITHIN]
        near_or_best = [
            f"{self._facts.tags[tag]} ({scores[tag]:.2f}, threshold {limits[tag]:.2f})"
            for tag in near or best[:1]
        ]
        return f"{'unsure' if near else 'least sure'} about {' and '.join(near_or_best)}"


def _reserved(image_ids: np.ndarray, random: float) -> np.ndarray:
    """Return which pictures (N,) are reserved for random reviews: those with the lowest ids."""
    bound = int(random * 16**8)
    if bound >= 16**8:
        return np.ones(len(image_ids), bool)
    return np.asarray(image_ids < f"{bound:08x}".encode())


def _is_due(number: int, share: float) -> bool:
    """Tell whether the picture after `number` others is of those that make up a share."""
    return int((number + 1) * share + 1e-9) > int(number * share + 1e-9)


def _largest(values: np.ndarray, most: int) -> np.ndarray:
    """Return the positions of the largest values, the largest first; the first of equal ones."""
    if len(values) > most:
        kept = np.sort(np.argpartition(-values, most)[:most])
        return kept[np.argsort(-values[kept], kind="stable")]
    return np.argsort(-values, kind="stable")


def _log_odds(probability: np.ndarray) -> np.ndarray:
    within = np.clip(probability, _SUREST, 1 - _SUREST, dtype=np.float32)
    return np.asarray(np.log(within / (1 - within)))


def fixed_ids(image_ids: Sequence[str]) -> np.ndarray:
    """Return image ids as a pool has them: (N,) bytes of one length."""
    return np.array([i.encode() for i in image_ids], dtype="S64")
