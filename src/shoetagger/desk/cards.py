"""What the desk shows of one picture: its tags by group, their origin, how sure they are."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ..config.places import Place
from ..config.recipe import Group
from ..inference.bundle import load_bundle
from ..network.layers import ModelError
from ..publishing.rows import shown_name
from ..store.rows import WHOLE_IMAGE, Correction, CurrentRow

# A probability this near to its threshold could as well lie on the other side.
NEAR = 0.1


@dataclass(frozen=True)
class Tag:
    """A tag of a card: `score` and `threshold` are None where no version gave a score.

    `near` marks a prediction that could as well have come out the other way.
    """

    name: str
    chosen: bool
    score: float | None
    threshold: float | None
    near: bool


@dataclass(frozen=True)
class GroupCard:
    """One group of a picture: `tags` are all that it has, in order.

    `state` is `judged` where there is a verdict on the picture, else `corrected`, `stale`,
    `untagged` or `tagged`; `seen` is the id of the correction in force, made by `by` at `at`;
    `digest` and `version` are of the bundle whose prediction counts, which is `unsure` where the
    picture is far from all labelled ones.
    """

    name: str
    state: str
    tags: tuple[Tag, ...]
    digest: str | None
    version: str | None
    seen: int | None = None
    unsure: bool = False
    kind: str | None = None
    by: str | None = None
    at: datetime | None = None

    @property
    def chosen(self) -> tuple[Tag, ...]:
        """The tags that are current."""
        return tuple(tag for tag in self.tags if tag.chosen)


@dataclass(frozen=True)
class Card:
    """A picture; `files` are its names for people, the first one foremost.

    `verdict` is what `judged_by` said of the whole picture; `seen` is the id of the latest
    correction in force, of whichever group.
    """

    image_id: str
    day: str
    first_seen: datetime
    width: int
    height: int
    files: tuple[str, ...]
    groups: tuple[GroupCard, ...]
    verdict: str | None
    judged_by: str | None
    seen: int | None

    @property
    def unsure(self) -> tuple[str, ...]:
        """The groups whose versions have learned from nothing like this picture."""
        return tuple(group.name for group in self.groups if group.unsure)

    def as_data(self) -> dict[str, dict[str, object]]:
        """Return by group what an edit in the browser starts from."""
        return {
            group.name: {
                "tags": [tag.name for tag in group.chosen],
                "seen": group.seen,
                "digest": group.digest,
                "state": group.state,
            }
            for group in self.groups
        }


def cards(
    rows: Sequence[CurrentRow],
    corrections: Mapping[tuple[str, str], Correction],
    groups: Mapping[str, Group],
    *,
    inbox: Place,
    bundles: Path,
) -> list[Card]:
    """Return the cards of pictures; `corrections` are those in force, by image id and group."""
    return [_card(row, corrections, groups, inbox, bundles) for row in rows]


def _card(
    row: CurrentRow,
    corrections: Mapping[tuple[str, str], Correction],
    groups: Mapping[str, Group],
    inbox: Place,
    bundles: Path,
) -> Card:
    # Those of groups that params.yaml no longer has, too.
    in_force = {name: one for (of, name), one in corrections.items() if of == row.image_id}
    verdict = in_force.get(WHOLE_IMAGE) if row.verdict is not None else None
    return Card(
        image_id=row.image_id,
        day=row.day,
        first_seen=row.first_seen,
        width=row.width,
        height=row.height,
        files=tuple(shown_name(locator, inbox) for locator in row.locators),
        groups=tuple(
            _group(name, group, row, in_force.get(name), bundles) for name, group in groups.items()
        ),
        verdict=row.verdict,
        judged_by=verdict.by if verdict else None,
        seen=max((one.id for one in in_force.values()), default=None),
    )


def _group(
    name: str, group: Group, row: CurrentRow, correction: Correction | None, bundles: Path
) -> GroupCard:
    cell = row.groups.get(name)
    if cell is None:
        tags = tuple(Tag(tag, False, None, None, near=False) for tag in group.tags)
        return GroupCard(name, "untagged", tags, None, None)
    limits = _thresholds(bundles, cell.digest) if cell.digest else {}
    tags = tuple(
        _tag(tag, tag in cell.tags, cell.scores.get(tag), limits.get(tag), cell.corrected)
        for tag in group.tags
    )
    judged = "judged" if row.verdict is not None else None
    if correction is None:
        state = judged or ("stale" if cell.stale else "tagged")
        return GroupCard(name, state, tags, cell.digest, cell.version, unsure=cell.unsure)
    return GroupCard(
        name,
        judged or "corrected",
        tags,
        cell.digest,
        cell.version,
        seen=correction.id,
        kind=correction.kind,
        by=correction.by,
        at=correction.created_at,
    )


def _tag(
    name: str, chosen: bool, score: float | None, threshold: float | None, corrected: bool
) -> Tag:
    near = (
        not corrected
        and score is not None
        and threshold is not None
        and abs(score - threshold) < NEAR
    )
    return Tag(name, chosen, score, threshold, near)


@functools.lru_cache(maxsize=256)
def _thresholds(bundles: Path, digest: str) -> Mapping[str, float]:
    """Return a bundle's thresholds by tag; none where the bundle is not in the cache."""
    try:
        bundle = load_bundle(bundles / digest)
    except (ModelError, OSError):
        return {}
    return dict(zip(bundle.tags, bundle.thresholds, strict=True))
