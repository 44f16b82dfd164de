"""Two models' decisions on the same pictures -> who is better, and by how much one can tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from sklearn.metrics import f1_score

from ..learning.evaluation.metrics import measurable_tags

_INTERVAL = (2.5, 97.5)


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
    found = []
    for i, tag in enumerate(tags):
        figures = None
        if measurable[i]:
            mine, theirs = (_f1(truth[:, i], said[:, i]) for said in (challenger, champion))
            figures = Figures(mine, theirs, _interval(draws[:, i]))
        found.append(TagFigures(tag, int(truth[:, i].sum()), figures))
    macro = None
    if told := [t.figures for t in found if t.figures]:
        macro = Figures(
            float(np.mean([f.challenger for f in told])),
            float(np.mean([f.champion for f in told])),
            _interval(draws[:, measurable].mean(axis=1)),
        )
    return Paired(len(truth), macro, tuple(found))


def _f1(truth: np.ndarray, said: np.ndarray) -> float:
    return float(f1_score(truth, said, average="binary", zero_division=0.0))


def _resampled_differences(
    truth: np.ndarray, challenger: np.ndarray, champion: np.ndarray, times: int, seed: int
) -> np.ndarray:
    """Return the differences of F1, (times, tags), over resamples of the pictures."""
    pictures = len(truth)
    if not pictures:
        return np.zeros((0, truth.shape[1]))
    # How often each picture is drawn says all of a resample; F1 is then three sums. A test holds
    # it against scikit-learn's, which would take minutes.
    often = np.random.default_rng(seed).multinomial(pictures, [1 / pictures] * pictures, times)
    positives = often @ truth.astype(np.int64)  # (times, tags)

    def f1(said: np.ndarray) -> np.ndarray:
        right = often @ (truth & said).astype(np.int64)
        answered = often @ said.astype(np.int64)
        value: np.ndarray = 2 * right / np.maximum(positives + answered, 1)
        return value

    differences: np.ndarray = f1(challenger) - f1(champion)
    return differences


def _interval(draws: np.ndarray) -> tuple[float, float] | None:
    if not len(draws):
        return None
    low, high = np.percentile(draws, _INTERVAL)
    return float(low), float(high)


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
