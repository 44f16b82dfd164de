"""Ways of choosing which pictures a person labels next: the product's queue, and others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from shoetagger.config.operations import Queue
from shoetagger.review.choosing import Interest, Pool, TagFacts, choose, interest


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


# A round and a number of pictures -> their positions.
Strategy = Callable[[Round, int], np.ndarray]


def _random(here: Round, number: int) -> np.ndarray:
    return here.rng.permutation(len(here.image_ids))[:number]


def _queue(by: Interest = interest, **changed: float) -> Strategy:
    """Return the product's queue with some options changed, or with other interests."""

    def choose_some(here: Round, number: int) -> np.ndarray:
        options = replace(here.options, size=number, **changed)
        places = {i.decode(): place for place, i in enumerate(here.image_ids.tolist())}

        def vectors(image_ids: Sequence[str]) -> dict[str, np.ndarray]:
            return {image_id: unit[places[image_id]] for image_id in image_ids}

        unit = here.features / np.linalg.norm(here.features, axis=1, keepdims=True)
        pool = Pool(here.image_ids, here.scores)
        choice = choose(pool, here.facts, options, vectors, by)
        return np.array([places[asked.image_id] for asked in choice.pictures])

    return choose_some


def _unweighted(scores: np.ndarray, facts: TagFacts) -> np.ndarray:
    return interest(scores, replace(facts, positives=np.ones_like(facts.positives)))


def _inverse(scores: np.ndarray, facts: TagFacts) -> np.ndarray:
    """Weigh by 1/positives."""
    return interest(scores, replace(facts, positives=np.square(facts.positives)))


def _most_unsure_tag(scores: np.ndarray, facts: TagFacts) -> np.ndarray:
    """Let only the tag count of which the models are most unsure."""
    worth = interest(scores, facts)
    return np.where(worth == worth.max(axis=1, keepdims=True), worth, 0.0)


def _least_sure(scores: np.ndarray, facts: TagFacts) -> np.ndarray:
    """Let only the tag count whose score is nearest to its threshold, whatever its positives."""
    worth = _unweighted(scores, facts)
    return np.where(worth == worth.max(axis=1, keepdims=True), worth, 0.0)


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
    "queue": _queue(),
    "none_drawn": _queue(random=0.0),
    "all_unsure": _queue(rare=0.0),
    "all_rare": _queue(rare=1.0),
    "spread_wider": _queue(max_cosine=0.5),
    "unweighted": _queue(_unweighted),
    "inverse_weight": _queue(_inverse),
    "most_unsure_tag": _queue(_most_unsure_tag),
    "least_sure": _queue(_least_sure, rare=0.0),
    "k_center": _k_center,
}
