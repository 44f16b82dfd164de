"""Side and fold of each picture by a hash of seed and image id, so that new rows move no others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence, Set

import numpy as np
import pandas as pd

from ...config import recipe
from ...errors import ShoetaggerError
from .folds import fold, fraction
from .labels import CHOSEN, Labels

SIDES = ("train", "validation")


class SplitError(ShoetaggerError):
    """The labels do not suffice to learn and measure a tag."""


def side(image_id: str, split: recipe.Split) -> str:
    """Return the side of a picture, "train" or "validation", before any positive moves."""
    return SIDES[fraction(split.seed, "side", image_id) < split.validation]


def split_group(
    labels: Labels, image_ids: Sequence[str], tags: Sequence[str], split: recipe.Split
) -> tuple[pd.DataFrame, list[str]]:
    """Split the pictures for one group of tags; `image_ids` belong to `labels.names`.

    Returns a table sorted by name (image_name, image_id, side, fold, then a 0/1 column per tag) and
    the sentences of the report: which positives were moved because a tag had none on a side, and
    which pictures occur twice with different tags. Raises SplitError, naming every tag concerned,
    where a tag lacks positives or negatives.
    """
    columns = [labels.tags.index(tag) for tag in tags]
    table = pd.DataFrame(labels.matrix[:, columns].astype(np.int64), columns=list(tags))
    table.insert(0, "image_name", list(labels.names))
    table.insert(1, "image_id", list(image_ids))
    origins = labels.origins or ("",) * len(image_ids)
    chosen = {i for i, origin in zip(image_ids, origins, strict=True) if origin in CHOSEN}
    table.insert(2, "side", [SIDES[0] if i in chosen else side(i, split) for i in image_ids])
    table.insert(3, "fold", [fold(image_id, split) for image_id in image_ids])
    table = table.sort_values("image_name", ignore_index=True)

    _refuse_rare(table, tags)
    report = _contradictions(table, tags)
    report += _move_positives(table, tags, split, chosen)
    _refuse_without_negatives(table, tags)
    return table, report


def _refuse_rare(table: pd.DataFrame, tags: Sequence[str]) -> None:
    faults = []
    for tag in tags:
        count = table.loc[table[tag] == 1, "image_id"].nunique()
        if count < 2:
            have = "1 picture" if count else "no picture"
            faults.append(
                f"tag {tag!r} has {have} that shows it, and needs 2: one to learn from and one "
                "to validate with; tick it for more pictures, or take it out of params.yaml"
            )
    if faults:
        pictures = table["image_id"].nunique()
        raise SplitError("\n".join([*faults, f"({pictures} different pictures are labelled)"]))


def _contradictions(table: pd.DataFrame, tags: Sequence[str]) -> list[str]:
    sentences = []
    repeated = table[table.duplicated("image_id", keep=False)]
    for _, same in repeated.groupby("image_id", sort=False):
        differing = [tag for tag in tags if same[tag].nunique() > 1]
        if differing:
            names = ", ".join(map(repr, same["image_name"]))
            sentences.append(
                f"{names} are the same picture with different tags: {', '.join(differing)}"
            )
    return sentences


def _move_positives(
    table: pd.DataFrame, tags: Sequence[str], split: recipe.Split, chosen: Set[str]
) -> list[str]:
    """Give each tag a positive on either side, in `table`; return one sentence per move."""
    moves = _Moves(table, tags, split, chosen)
    for _ in range(8 * len(tags)):
        lacking = next(moves.lacking(), None)
        if lacking is None:
            break
        moves.move(*lacking)
    if left := list(dict.fromkeys(tag for tag, _ in moves.lacking())):
        raise SplitError(
            f"tags {', '.join(map(repr, left))} share so few pictures that they cannot "
            "all have one on either side: tick them for more pictures"
        )
    return moves.sentences()


class _Moves:
    """Moves positives of a group's `table` from side to side, until each tag has some on both.

    Pictures that were `chosen` stay on the training side; a tag that only they have is learned
    and not measured. Of the other positives that no other tag needs where they are, the one with
    the lowest hash moves.
    """

    def __init__(
        self, table: pd.DataFrame, tags: Sequence[str], split: recipe.Split, chosen: Set[str]
    ) -> None:
        self._table, self._tags, self._chosen = table, tags, chosen
        self._order = {i: fraction(split.seed, "side", i) for i in table["image_id"].unique()}
        self._times_moved: Counter[str] = Counter()
        self._moved: dict[str, str] = {}  # image id -> sentence, of those not moved back since
        self._unmeasured: set[str] = set()

    def lacking(self) -> Iterator[tuple[str, str]]:
        """Yield each tag without a positive on a side, and that side."""
        for tag in self._tags:
            for on in SIDES:
                if tag not in self._unmeasured and not self._positives(tag, on):
                    yield tag, on

    def move(self, tag: str, to: str) -> None:
        """Move a positive of a tag to a side that has none, if the tag can be measured at all."""
        source = SIDES[to == SIDES[0]]
        positives = self._positives(tag, source)
        if to == SIDES[1] and positives <= self._chosen:
            self._unmeasured.add(tag)
            return
        moved = self._least_needed(positives - self._chosen, source)
        rows = self._table["image_id"] == moved
        self._table.loc[rows, "side"] = to
        self._times_moved[moved] += 1
        if self._times_moved[moved] % 2 == 0:  # back where its hash put it
            del self._moved[moved]
            return
        names = ", ".join(map(repr, self._table.loc[rows, "image_name"]))
        self._moved[moved] = (
            f"tag {tag!r}: none of its {len(positives)} pictures fell on the {to} side, "
            f"so {names} moved there from {source}"
        )

    def sentences(self) -> list[str]:
        """Return what was moved, and which tags cannot be measured, for the report."""
        unmeasured = [
            f"tag {tag!r}: people chose all of its pictures, so none can validate it: it is "
            "learned and not measured"
            for tag in self._tags
            if tag in self._unmeasured
        ]
        return [*self._moved.values(), *unmeasured]

    def _least_needed(self, image_ids: Set[str], on: str) -> str:
        """Return the picture that no other tag needs on its side; of several, the lowest hash.

        Where all are needed, one is returned nevertheless, and the tag that loses it comes next.
        """
        needed = {
            i for tag in self._tags if len(only := self._positives(tag, on)) == 1 for i in only
        }
        return min(image_ids, key=lambda i: (i in needed, self._times_moved[i], self._order[i]))

    def _positives(self, tag: str, on: str) -> set[str]:
        rows = (self._table[tag] == 1) & (self._table["side"] == on)
        return set(self._table.loc[rows, "image_id"])


def _refuse_without_negatives(table: pd.DataFrame, tags: Sequence[str]) -> None:
    faults = []
    for on in SIDES:
        rows = table[table["side"] == on]
        size = "1 picture" if len(rows) == 1 else f"{len(rows)} pictures"
        faults += [
            f"tag {tag!r} is ticked for all of the {on} side ({size}), so nothing there "
            "shows what it looks like when absent: label more pictures without it, or take it out "
            "of params.yaml"
            for tag in tags
            if (rows[tag] == 1).all()
        ]
    if faults:
        raise SplitError("\n".join(faults))
