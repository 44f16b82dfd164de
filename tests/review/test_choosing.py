"""Which pictures people are asked to check, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from shoetagger.config.operations import Queue
from shoetagger.review.choosing import (
    Objection,
    Pool,
    TagFacts,
    choose,
    fixed_ids,
    origin_of,
)

# Nothing is drawn: what is chosen is the subject.
CHOSEN = Queue(size=10, random=0.0, rare=0.5, min_probability=0.2, per_tag=12)
ALL_RARE, ALL_UNSURE = replace(CHOSEN, rare=1.0), replace(CHOSEN, rare=0.0)
TAGS = ("boot", "heel", "studded")


def facts(*positives: int, thresholds: float = 0.5) -> TagFacts:
    positives = positives or (100, 20, 5)
    return TagFacts(TAGS, np.full(3, thresholds), np.array(positives))


def pool(*scores: tuple[float, ...]) -> Pool:
    """Pictures with these scores, named f0..., f1... in their order."""
    ids = [f"f{number:04x}".ljust(64, "0") for number in range(len(scores))]
    table = np.array(scores, np.float32).reshape(len(scores), 3)
    return Pool(fixed_ids(ids), table, np.zeros(len(scores), bool))


def order(choice) -> list[int]:
    return [int(picture.image_id[1:5], 16) for picture in choice.pictures]


def many(count: int, seed: int = 1) -> Pool:
    """Pictures with drawn scores, and ids as hashes have them."""
    rng = np.random.default_rng(seed)
    ids = [rng.bytes(32).hex() for _ in range(count)]
    scores = rng.random((count, 3)).astype(np.float32)
    return Pool(fixed_ids(ids), scores, np.zeros(count, bool))


# Drawn at random


def test_one_in_five_is_drawn_from_a_part_of_which_nothing_is_chosen() -> None:
    found = choose(many(1000), facts(), Queue(size=50, random=0.2))
    assert [n for n, picture in enumerate(found.pictures, 1) if picture.origin == "random"] == [
        *range(5, 51, 5)
    ]
    for picture in found.pictures:
        assert origin_of(picture.image_id, 0.2) == picture.origin
        assert (picture.reason == "drawn at random") == (picture.origin == "random")


def test_what_is_drawn_depends_on_no_score_and_goes_on_where_it_was() -> None:
    options = Queue(size=50, random=0.2)
    whole = many(1000)
    ids = sorted(whole.image_ids.tolist())[:20]

    def drawn(pictures: Pool) -> list[bytes]:
        found = choose(pictures, facts(), options)
        return [a.image_id.encode() for a in found.pictures if a.origin == "random"]

    assert drawn(whole) == ids[:10]
    assert drawn(replace(whole, scores=whole.scores[::-1])) == ids[:10]
    rest = ~np.isin(whole.image_ids, ids[:10])
    assert drawn(whole.where(rest)) == ids[10:]


def test_all_or_nothing_can_be_drawn() -> None:
    for share, origin in ((1.0, "random"), (0.0, "queue")):
        found = choose(many(100), facts(), Queue(size=10, random=share))
        assert {picture.origin for picture in found.pictures} == {origin}
        assert origin_of(found.pictures[0].image_id, share) == origin


# Rare tags


def test_the_rarest_tag_gets_its_likeliest_picture_first() -> None:
    found = choose(pool((0.9, 0.3, 0.2), (0.1, 0.1, 0.6), (0.2, 0.9, 0.1)), facts(), ALL_RARE)
    assert order(found)[0] == 1
    assert found.pictures[0].reason == "may show studded (0.60), learned from 5 so far"


def test_tags_take_turns_once_they_are_equally_rare() -> None:
    # What was asked for counts as if it were there: 5 studded ones become 6, and heels are next.
    scores = [(0.0, 0.0, 1.0 - n / 100) for n in range(4)]
    scores += [(0.0, 0.9 - n / 100, 0.0) for n in range(4)]
    found = choose(pool(*scores), facts(100, 6, 5), replace(ALL_RARE, size=4))
    assert order(found) == [0, 4, 1, 5]


def test_a_tag_that_no_picture_seems_to_have_is_not_hunted_and_that_is_said() -> None:
    scores = [(0.5, 0.2, 0.19)] * 3
    found = choose(pool(*scores), facts(), replace(ALL_RARE, size=2))
    assert all(picture.reason.startswith("may show heel (0.20)") for picture in found.pictures)
    assert found.notes == (
        "studded: no picture has a probability of 0.2 or more (labels.queue.min_probability)",
    )


def test_a_tag_is_asked_for_a_dozen_times_at_most() -> None:
    found = choose(pool(*[(0.1, 0.1, 0.9)] * 30), facts(), replace(ALL_RARE, size=20))
    asked = [
        picture.reason.split()[2] for picture in found.pictures if "may show" in picture.reason
    ]
    assert asked == ["studded"] * 12
    assert "studded: asked for 12 times, which is the most (labels.queue.per_tag)" in found.notes
    # What rare tags do not take goes to the others.
    assert len(found.pictures) == 20


# Unsure


def test_what_is_nearest_to_a_threshold_comes_first() -> None:
    scores = [(0.95, 0.05, 0.05), (0.6, 0.05, 0.05), (0.05, 0.35, 0.05)]
    found = choose(pool(*scores), facts(20, 20, 20, thresholds=0.35), ALL_UNSURE)
    assert order(found) == [2, 1, 0]
    assert found.pictures[0].reason == "unsure about heel (0.35, threshold 0.35)"


def test_a_tag_of_few_positives_weighs_more() -> None:
    scores = [(0.5, 0.01, 0.01), (0.01, 0.01, 0.4)]
    assert order(choose(pool(*scores), facts(100, 20, 5), ALL_UNSURE)) == [1, 0]
    assert order(choose(pool(*scores), facts(5, 20, 100), ALL_UNSURE)) == [0, 1]


def test_half_is_rare_and_half_unsure() -> None:
    found = choose(many(400), facts(), CHOSEN)
    kinds = [picture.reason.split()[0] for picture in found.pictures]
    assert kinds == ["unsure", "may"] * 5


# Contradictions and objections


def test_tags_that_exclude_each_other_are_asked_for_with_both_scores() -> None:
    scores = [(0.95, 0.05, 0.05), (0.9, 0.05, 0.9), (0.9, 0.8, 0.05)]
    known = replace(facts(20, 20, 5), exclusive=((1, 2), (0, 2)))
    found = choose(pool(*scores), known, ALL_UNSURE)
    assert order(found)[0] == 1
    assert found.pictures[0].reason == "boot (0.90) and studded (0.90) exclude each other"
    assert not any("exclude" in picture.reason for picture in found.pictures[1:])


def test_what_a_challenger_objects_to_counts_as_at_its_threshold() -> None:
    def first(*scores: tuple[float, ...]) -> tuple[int, str]:
        pictures = pool(*scores)
        objections = {pictures.image_ids[0].decode(): Objection((0,), "version 2 says otherwise")}
        objections["e" * 64] = Objection((1,), "of a picture that is checked")
        found = choose(pictures, facts(20, 20, 5), ALL_UNSURE, objections=objections)
        return order(found)[0], found.pictures[0].reason

    assert first((0.99, 0.01, 0.01), (0.6, 0.01, 0.01)) == (0, "version 2 says otherwise")
    # Another doubt about the same picture, of a rarer tag, is more worth a look.
    words = "unsure about studded (0.50, threshold 0.50)"
    assert first((0.99, 0.01, 0.5), (0.6, 0.01, 0.01)) == (0, words)


def test_an_objection_about_what_a_person_said_since_counts_no_more() -> None:
    nothing = float("nan")
    pictures = pool((nothing, 0.05, 0.05), (0.6, 0.05, 0.05))
    objections = {pictures.image_ids[0].decode(): Objection((0,), "version 2 says otherwise")}
    found = choose(pictures, facts(), ALL_UNSURE, objections=objections)
    assert not any("version 2" in picture.reason for picture in found.pictures)


# Both


@pytest.mark.parametrize("options", [ALL_RARE, ALL_UNSURE])
def test_nearly_equal_pictures_are_not_both_chosen(options: Queue) -> None:
    pictures = pool((0.5, 0.4, 0.6), (0.5, 0.4, 0.6), (0.5, 0.8, 0.3), (0.5, 0.3, 0.3))
    angles = dict(zip(pictures.image_ids.tolist(), (0.0, 0.2, 0.3), strict=False))

    def vectors(image_ids: Sequence[str]) -> dict[str, np.ndarray]:
        """Of three pictures; the first and the second, and the second and the third, are alike."""
        known = {i: angles[i.encode()] for i in image_ids if i.encode() in angles}
        return {i: np.array([np.cos(angle), np.sin(angle)]) for i, angle in known.items()}

    assert set(order(choose(pictures, facts(), options, vectors))) == {0, 2, 3}
    all_of_them = replace(options, max_cosine=1.0)
    assert set(order(choose(pictures, facts(), all_of_them, vectors))) == {0, 1, 2, 3}


def test_what_is_far_from_all_labelled_pictures_is_drawn_and_not_chosen() -> None:
    pictures = many(200)
    far = replace(pictures, far=np.ones(200, bool))
    found = choose(far, facts(), Queue(size=50))
    assert {picture.origin for picture in found.pictures} == {"random"}
    whole = choose(pictures, facts(), Queue(size=200))
    drawn = [picture for picture in whole.pictures if picture.origin == "random"]
    assert list(found.pictures) == drawn[:50]


def test_a_picture_is_asked_for_once_and_the_same_every_time() -> None:
    pictures = many(300)
    first = choose(pictures, facts(), Queue(size=50))
    assert len({picture.image_id for picture in first.pictures}) == 50
    assert choose(pictures, facts(), Queue(size=50)) == first


def test_what_runs_out_is_made_up_for_until_nothing_is_left() -> None:
    few = many(30)
    found = choose(few, facts(), Queue(size=50))
    assert {picture.image_id.encode() for picture in found.pictures} == set(few.image_ids.tolist())
    assert choose(pool(), facts(), Queue()).pictures == ()


def test_a_tag_without_a_score_is_neither_rare_nor_unsure() -> None:
    nothing = float("nan")
    scores = [(nothing, nothing, nothing), (0.5, nothing, nothing)]
    found = choose(pool(*scores), facts(), CHOSEN)
    assert order(found) == [1]
    assert "boot" in found.pictures[0].reason
