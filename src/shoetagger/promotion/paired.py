"""Paired statistics: which of two models predicts the same pictures better, and how surely.

Resampling the pictures for both models at once (a paired bootstrap) keeps what is hard for both
from blurring which one is better.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..learning.evaluation.metrics import measurable_tags
from ..learning.evaluation.resampling import central_interval, f1_by_tag, resampled_counts


@dataclass(frozen=True)
class ScorePair:
    """F1 of both; `interval` is of the difference, None where nothing was resampled."""

    challenger: float
    champion: float
    interval: tuple[float, float] | None

    @property
    def difference(self) -> float:
        return self.challenger - self.champion


@dataclass(frozen=True)
class TagMetrics:
    """One tag; `f1` is None where it has too few positives to be measured."""

    tag: str
    positives: int
    f1: ScorePair | None


@dataclass(frozen=True)
class PairedMetrics:
    """Both on one set of pictures; `macro_f1` is over the measurable tags, None without any."""

    pictures: int
    macro_f1: ScorePair | None
    tags: tuple[TagMetrics, ...]


def paired_metrics(
    truth: np.ndarray,
    challenger: np.ndarray,
    champion: np.ndarray,
    tags: Sequence[str],
    *,
    min_positives: int,
    bootstrap: int,
    seed: int,
) -> PairedMetrics:
    """Compare two sets of predictions with the truth, each (N, tags) 0/1.

    Intervals are the central 95 % of the differences over `bootstrap` resamples of the pictures,
    the same for both models.
    """
    measurable = measurable_tags(truth, min_positives)
    draws = _resampled_differences(truth, challenger, champion, bootstrap, seed)
    f1 = f1_by_tag(truth, challenger), f1_by_tag(truth, champion)
    rows = []
    for i, tag in enumerate(tags):
        pair = None
        if measurable[i]:
            interval = central_interval(draws[:, i])
            pair = ScorePair(float(f1[0][i]), float(f1[1][i]), interval)
        rows.append(TagMetrics(tag, int(truth[:, i].sum()), pair))
    macro = None
    if pairs := [row.f1 for row in rows if row.f1]:
        macro = ScorePair(
            float(np.mean([pair.challenger for pair in pairs])),
            float(np.mean([pair.champion for pair in pairs])),
            central_interval(draws[:, measurable].mean(axis=1)),
        )
    return PairedMetrics(len(truth), macro, tuple(rows))


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
        """Count one picture; return whether its tags change."""
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
