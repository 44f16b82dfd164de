"""Scores of several cross-validations -> figures with intervals."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from sklearn.metrics import average_precision_score

from shoetagger.inference.decision import UNCALIBRATED, predict
from shoetagger.learning.evaluation.calibration import calibrate
from shoetagger.learning.evaluation.metrics import (
    NOT_MEASURABLE,
    interval,
    macro_f1,
    measurable_tags,
    most_frequent_answer,
)

RESAMPLES = 1000


@dataclass(frozen=True)
class Scored:
    """One cross-validation: fold (N,), scores (N, tags), NaN where a fold was not judged.

    `composites` are the scores of the same pictures on other backgrounds, all NaN where a recipe
    gives none.
    """

    folds: np.ndarray
    scores: np.ndarray
    composites: np.ndarray

    @property
    def judged(self) -> np.ndarray:
        return np.flatnonzero(~np.isnan(self.scores[:, 0]))


@dataclass(frozen=True)
class Judge:
    """How rows are judged: tags by group, and two of params.yaml's `evaluate`.

    Thresholds come from the other folds, or are 0.5 where `shrink` is None. A tag of fewer pictures
    than `min_positives` is not measurable: means leave it out.
    """

    groups: Mapping[str, tuple[str, ...]]
    min_positives: int
    shrink: float | None

    @property
    def tags(self) -> list[str]:
        return [tag for tags in self.groups.values() for tag in tags]


def figures(judge: Judge, truth: np.ndarray, found: list[Scored]) -> dict[str, Any]:
    """Judge the rows of all cross-validations together; `truth` is (N, tags), tags by group.

    Intervals resample pictures, each with all its rows: the same picture in three cross-validations
    is one fact.
    """
    pictures = np.concatenate([one.judged for one in found])
    known = truth[np.unique(pictures)]
    measurable = measurable_tags(known, judge.min_positives)
    true = truth[pictures]
    plain = np.concatenate([one.scores[one.judged] for one in found])
    said = _said(judge, truth, found, "scores")
    at_half = _said(dataclasses.replace(judge, shrink=None), truth, found, "scores")
    document = {
        "judged": len(pictures),
        "pictures_judged": len(known),
        "support": dict(zip(judge.tags, known.sum(axis=0).tolist(), strict=True)),
        **_f1(judge.groups, true, said, measurable, pictures),
        "macro_f1_at_half": _told(macro_f1(true, at_half, measurable)),
        "mean_average_precision": round(_average_precision(true, plain, measurable), 4),
        "exact_match": round(float((true == said).all(axis=1).mean()), 4),
        "most_frequent_answer": most_frequent_answer(said, judge.tags),
        "answered": _shares(said, judge.tags),
    }
    if _asks_composites(found):
        other = _said(judge, truth, found, "composites")
        document["composites"] = _f1(judge.groups, true, other, measurable, pictures)
    return document


def differences(
    judge: Judge, truth: np.ndarray, found: list[Scored], unchanged: list[Scored]
) -> dict[str, Any]:
    """Return by how much macro F1 is above that of another recipe on the same folds.

    Paired: an interval resamples pictures, and compares both recipes on the same ones. It knows
    nothing of how another draw of folds or another seed of training would move either.
    """
    pictures = np.concatenate([one.judged for one in found])
    measurable = measurable_tags(truth[np.unique(pictures)], judge.min_positives)
    true, draws = truth[pictures], _resamples(pictures)
    document: dict[str, Any] = {}
    shown: list[Literal["scores", "composites"]] = ["scores"]
    if _asks_composites(found) and _asks_composites(unchanged):
        shown.append("composites")
    for part in shown:
        one, other = (_said(judge, truth, each, part) for each in (found, unchanged))

        def gain(rows: np.ndarray, a: np.ndarray = one, b: np.ndarray = other) -> float | None:
            better = macro_f1(true[rows], a[rows], measurable)
            worse = macro_f1(true[rows], b[rows], measurable)
            return None if better is None or worse is None else better - worse

        document[part] = {
            "macro_f1": _told(gain(np.arange(len(true)))),
            "macro_f1_interval": interval(gain, draws),
        }
    return document


def of_first_fold(found: list[Scored]) -> list[Scored]:
    """Return the same scores as if the first fold of each cross-validation alone were judged."""
    return [
        dataclasses.replace(
            one,
            scores=np.where((one.folds == 0)[:, None], one.scores, np.nan),
            composites=np.where((one.folds == 0)[:, None], one.composites, np.nan),
        )
        for one in found
    ]


def _asks_composites(found: list[Scored]) -> bool:
    return not any(np.isnan(one.composites[one.judged]).any() for one in found)


def _said(
    judge: Judge, truth: np.ndarray, found: list[Scored], part: Literal["scores", "composites"]
) -> np.ndarray:
    """Return what is decided of all judged rows, the cross-validations one after the other."""
    return np.concatenate([_decide(judge, one, getattr(one, part), truth) for one in found])


def _decide(judge: Judge, one: Scored, scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Decide the judged rows group by group; a group without a passing tag gets its best one."""
    said = np.zeros_like(truth)
    for columns in _columns(judge.groups).values():
        for number in np.unique(one.folds[one.judged]):
            here = one.judged[one.folds[one.judged] == number]
            others = one.judged[one.folds[one.judged] != number]
            limits = [UNCALIBRATED] * len(columns)
            if judge.shrink is not None:
                known = np.ix_(others, columns)
                limits = list(calibrate(one.scores[known], truth[known], judge.shrink)[0])
            said[np.ix_(here, columns)] = predict(scores[np.ix_(here, columns)], limits)
    return said[one.judged]


def _columns(groups: Mapping[str, tuple[str, ...]]) -> dict[str, list[int]]:
    found, start = {}, 0
    for name, tags in groups.items():
        found[name] = list(range(start, start + len(tags)))
        start += len(tags)
    return found


def _f1(
    groups: Mapping[str, tuple[str, ...]],
    true: np.ndarray,
    said: np.ndarray,
    measurable: np.ndarray,
    pictures: np.ndarray,
) -> dict[str, Any]:
    draws = _resamples(pictures)
    document: dict[str, Any] = _with_interval(true, said, measurable, draws)
    document |= {"groups_f1": {}, "tags": {}}
    for group, columns in _columns(groups).items():
        document["groups_f1"][group] = _with_interval(
            true[:, columns], said[:, columns], measurable[columns], draws
        )
        for tag, column in zip(groups[group], columns, strict=True):
            alone = [column]
            f1 = macro_f1(true[:, alone], said[:, alone], measurable[alone])
            document["tags"][tag] = _told(f1)
    return document


def _with_interval(
    true: np.ndarray, said: np.ndarray, measurable: np.ndarray, draws: list[np.ndarray]
) -> dict[str, Any]:
    return {
        "macro_f1": _told(macro_f1(true, said, measurable)),
        "macro_f1_interval": interval(lambda r: macro_f1(true[r], said[r], measurable), draws),
    }


def _average_precision(true: np.ndarray, scores: np.ndarray, measurable: np.ndarray) -> float:
    columns = np.flatnonzero(measurable)
    return float(np.mean([average_precision_score(true[:, i], scores[:, i]) for i in columns]))


def _resamples(pictures: np.ndarray) -> list[np.ndarray]:
    """Return RESAMPLES draws of pictures, each as all the rows of what was drawn."""
    rng = np.random.default_rng(1)
    rows = {picture: np.flatnonzero(pictures == picture) for picture in np.unique(pictures)}
    known = list(rows)
    return [
        np.concatenate([rows[p] for p in rng.choice(known, len(known))]) for _ in range(RESAMPLES)
    ]


def _told(f1: float | None) -> float | str:
    return NOT_MEASURABLE if f1 is None else round(f1, 4)


def _shares(said: np.ndarray, tags: list[str]) -> dict[str, float]:
    return {tag: round(float(share), 4) for tag, share in zip(tags, said.mean(axis=0), strict=True)}
