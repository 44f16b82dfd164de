"""Two models' decisions on the same pictures -> who is better, and by how much one can tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..learning.evaluation.metrics import measurable_tags
from ..learning.evaluation.resampling import central_interval, f1_by_tag, resampled_counts


@dataclass(frozen=True)
class Figures:
    """F1 of both; `interval` is of the difference, None where nothing was resampled."""

    challenger: float
    champion: float
    interval: tuple[float, float] | None

    @property
    def difference(self) -> float:
        return self.challenger - self.champion


@dataclass(frozen=True)
class TagFigures:
    """One tag; `figures` is None where it has too few positives to be measured."""

    tag: str
    positives: int
    figures: Figures | None


@dataclass(frozen=True)
class Paired:
    """Both on one set of pictures; `macro_f1` is over the measurable tags, None without any."""

    pictures: int
    macro_f1: Figures | None
    tags: tuple[TagFigures, ...]


def paired(
    truth: np.ndarray,
    challenger: np.ndarray,
    champion: np.ndarray,
    tags: Sequence[str],
    *,
    min_positives: int,
    bootstrap: int,
    seed: int,
) -> Paired:
    """Compare two sets of decisions with the truth, each (N, tags) 0/1.

    Intervals are the central 95 % of the differences over `bootstrap` resamples of the pictures,
    the same pictures for both: what is hard for both does not blur which is better.
    """
    measurable = measurable_tags(truth, min_positives)
    draws = _resampled_differences(truth, challenger, champion, bootstrap, seed)
    f1 = f1_by_tag(truth, challenger), f1_by_tag(truth, champion)
    found = []
    for i, tag in enumerate(tags):
        figures = None
        if measurable[i]:
            interval = central_interval(draws[:, i])
            figures = Figures(float(f1[0][i]), float(f1[1][i]), interval)
        found.append(TagFigures(tag, int(truth[:, i].sum()), figures))
    macro = None
    if told := [t.figures for t in found if t.figures]:
        macro = Figures(
            float(np.mean([f.challenger for f in told])),
            float(np.mean([f.champion for f in told])),
            central_interval(draws[:, measurable].mean(axis=1)),
        )
    return Paired(len(truth), macro, tuple(found))


def _resampled_differences(
    truth: np.ndarray, challenger: np.ndarray, champion: np.ndarray, times: int, seed: int
) -> np.ndarray:
    """Return the differences of F1, (times, tags), over resamples of the pictures."""
    draws = resampled_counts(len(truth), times, seed)
    difference: np.ndarray = f1_by_tag(truth, challenger, draws) - f1_by_tag(truth, champion, draws)
    return difference


@dataclass
class TagDiff:
    """How the tags of pictures change from one model to the other; grows with `add`."""

    pictures: int = 0
    changed: int = 0
    gained: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)

    def add(self, before: Collection[str], after: Collection[str]) -> bool:
        """Count one picture; tells whether its tags change."""
        self.pictures += 1
        gained, lost = set(after) - set(before), set(before) - set(after)
        self.gained.update(gained)
        self.lost.update(lost)
        self.changed += bool(gained or lost)
        return bool(gained or lost)

    @property
    def share(self) -> float | None:
        """The share of the pictures whose tags change; None without pictures."""
        return self.changed / self.pictures if self.pictures else None

    def counts(self) -> Mapping[str, tuple[int, int]]:
        """Return tag -> pictures that gain it and that lose it, by the number of changes."""
        both = self.gained + self.lost
        return {tag: (self.gained[tag], self.lost[tag]) for tag, _ in both.most_common()}
