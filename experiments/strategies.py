"""Ways of choosing which pictures a person labels next: the product's queue, and others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from shoetagger.config.operations import Queue
from shoetagger.review.choosing import Interest, Pool, TagFacts, choose, interest, unsureness


@dataclass(frozen=True)
class Round:
    """The pictures that can be chosen, and what is known of them; `options` are params.yaml's.

    `features` (N, width) are theirs, `known` (labelled, width) those of the labelled ones.
    """

    image_ids: np.ndarray
    scores: np.ndarray
    facts: TagFacts
    features: np.ndarray
    known: np.ndarray
    options: Queue
    rng: np.random.Generator


_NEAR = 0.95  # share of the labelled pictures that are not far

# A round and a number of pictures -> their positions.
Strategy = Callable[[Round, int], np.ndarray]


def _random(here: Round, number: int) -> np.ndarray:
    return here.rng.permutation(len(here.image_ids))[:number]


def _queue(by: Interest = interest, *, far: bool = False, **changed: float) -> Strategy:
    """Return the product's queue with some options changed, or with other interests.

    `far`: it leaves out what is far from all labelled pictures, as the night marks it.
    """

    def choose_some(here: Round, number: int) -> np.ndarray:
        options = replace(here.options, size=number, **changed)
        places = {i.decode(): place for place, i in enumerate(here.image_ids.tolist())}

        def vectors(image_ids: Sequence[str]) -> dict[str, np.ndarray]:
            return {image_id: unit[places[image_id]] for image_id in image_ids}

        unit = here.features / np.linalg.norm(here.features, axis=1, keepdims=True)
        none = np.zeros(len(here.image_ids), bool)
        pool = Pool(here.image_ids, here.scores, _is_far(here) if far else none)
        choice = choose(pool, here.facts, options, vectors, by)
        return np.array([places[picture.image_id] for picture in choice.pictures])

    return choose_some


def _is_far(here: Round) -> np.ndarray:
    """Tell what is farther from the mean of the labelled pictures than nearly all of them are."""
    mean, spread = here.known.mean(axis=0), here.known.std(axis=0) + 1e-6
    known, new = (np.square((x - mean) / spread).mean(axis=1) for x in (here.known, here.features))
    far: np.ndarray = new > np.quantile(known, _NEAR)
    return far


def _unweighted(facts: TagFacts) -> TagFacts:
    return replace(facts, positives=np.ones_like(facts.positives))


def _inverse(facts: TagFacts) -> TagFacts:
    """Let tags weigh 1/positives instead of the root of it."""
    return replace(facts, positives=np.square(facts.positives))


def _of_all_tags(scores: np.ndarray, facts: TagFacts) -> np.ndarray:
    total: np.ndarray = unsureness(scores, facts).sum(axis=1)
    return total


def _typical(strategy: Strategy, left_out: float) -> Strategy:
    """Leave out the share of the pictures that least resemble any others before choosing."""

    def choose_some(here: Round, number: int) -> np.ndarray:
        every = np.concatenate([here.features, here.known])
        unit = every / np.linalg.norm(every, axis=1, keepdims=True)
        cosines = unit[: len(here.features)] @ unit.T
        nearest = np.sort(cosines, axis=1)[:, -6:-1].mean(axis=1)  # the last one is itself
        kept = np.flatnonzero(nearest >= np.quantile(nearest, left_out))
        rest = replace(
            here,
            image_ids=here.image_ids[kept],
            scores=here.scores[kept],
            features=here.features[kept],
        )
        return kept[strategy(rest, number)]

    return choose_some


def _k_center(here: Round, number: int) -> np.ndarray:
    """Take the picture farthest from all labelled and chosen ones, again and again."""

    def distances(to: np.ndarray) -> np.ndarray:
        squares = np.square(here.features).sum(axis=1) + np.square(to).sum()
        distance: np.ndarray = squares - 2 * here.features @ to
        return distance

    nearest = np.min([distances(one) for one in here.known], axis=0)
    chosen: list[int] = []
    for _ in range(min(number, len(nearest))):
        farthest = int(nearest.argmax())
        chosen.append(farthest)
        nearest = np.minimum(nearest, distances(here.features[farthest]))
        nearest[chosen] = -np.inf
    return np.array(chosen)


STRATEGIES: Mapping[str, Strategy] = {
    "random": _random,
    "random_again": _random,
    "queue": _queue(far=True),
    "with_far": _queue(),
    "all_rare": _queue(rare=1.0),
    "likely_rare": _queue(min_probability=0.5),
    "all_unsure_unweighted": _queue(lambda s, f: interest(s, _unweighted(f)), rare=0.0),
    "sum": _queue(_of_all_tags),
    "sum_none_drawn": _queue(_of_all_tags, random=0.0),
    "sum_all_unsure": _queue(_of_all_tags, rare=0.0),
    "sum_spread_wider": _queue(_of_all_tags, max_cosine=0.5),
    "sum_unweighted": _queue(lambda s, f: _of_all_tags(s, _unweighted(f))),
    "sum_inverse": _queue(lambda s, f: _of_all_tags(s, _inverse(f))),
    "typical": _typical(_queue(), 0.05),
    "random_typical": _typical(_random, 0.05),
    "k_center": _k_center,
}
