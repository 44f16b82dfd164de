"""How right the tags are, by what people said about pictures drawn at random."""

from __future__ import annotations

from datetime import timedelta

import pytest
from helpers.desk import COLOR, Desk, image_id
from scipy.stats import binomtest

from shoetagger.config import params
from shoetagger.review.quality import Quality, Review, Share, quality, score
from shoetagger.store.rows import Edit


def measured(desk: Desk) -> Quality:
    return quality(desk.store, params.load(desk.settings.params_file).groups)


def say(desk: Desk, name: str, *tags: str, origin: str = "random", days: int = 0) -> None:
    """Let a person say a picture's colours, some days after the last arrival."""
    key = image_id(name), "color"
    seen = desk.store.corrections.in_force([key[0]]).get(key)
    edit = Edit(*key, tags, seen=seen.id if seen else None, seen_digest=COLOR)
    now = desk.now + timedelta(days=days)
    desk.store.corrections.apply([edit], by="ann", why="", origin=origin, now=now)


@pytest.mark.parametrize(("hits", "of"), [(0, 5), (5, 5), (3, 7), (90, 100), (1, 1)])
def test_intervals_are_wilsons(hits: int, of: int) -> None:
    known = binomtest(hits, of).proportion_ci(0.95, method="wilson")
    assert Share(hits, of).interval == pytest.approx((known.low, known.high), abs=1e-6)


def test_a_share_of_nothing_has_no_value() -> None:
    assert Share(0, 0).value is None
    assert Share(0, 0).interval is None


def test_tags_are_counted_as_predicted_and_as_right() -> None:
    def review(right: str, predicted: str) -> Review:
        return Review("2026-W01", frozenset(right.split()), frozenset(predicted.split()))

    reviews = [review("red", "red"), review("red black", "red"), review("", "black")]
    found = score(reviews, ("black", "red"))
    assert (found.reviews, found.exact) == (3, Share(1, 3))
    assert (found.precision, found.recall) == (Share(2, 3), Share(2, 3))
    red = score(reviews, ("red",))
    assert (red.precision, red.recall, red.exact) == (Share(2, 2), Share(2, 2), Share(3, 3))


def test_without_random_reviews_there_is_no_quality(desk: Desk) -> None:
    desk.arrive({"a.jpg": ("red", "boot")})
    say(desk, "a.jpg", "black", origin="queue")
    found = measured(desk)
    assert (found.pictures, found.since) == (0, None)
    assert found.groups["color"].versions == ()


def test_only_pictures_drawn_at_random_count_by_version_tag_and_week(desk: Desk) -> None:
    desk.arrive({f"{n}.jpg": ("red", "boot") for n in range(4)})
    desk.days = 7
    desk.arrive({"late.jpg": ("black", "boot")})
    for number in range(3):
        say(desk, f"{number}.jpg", "red")
    say(desk, "late.jpg", "black", "red")
    say(desk, "3.jpg", "black", origin="browse")
    found = measured(desk)
    assert found.pictures == 4
    (version,) = found.groups["color"].versions
    assert (version.version, version.live) == ("1", True)
    assert version.total.recall == Share(4, 5)
    assert version.total.exact == Share(3, 4)
    assert version.tags["red"].recall == Share(3, 4)
    assert list(version.weeks) == ["2026-W02", "2026-W01"]
    assert version.weeks["2026-W02"].exact == Share(0, 1)
    assert found.groups["style"].versions == ()


def test_what_was_drawn_counts_as_whoever_edited_it_last_left_it(desk: Desk) -> None:
    desk.arrive({"a.jpg": ("red", "boot")})
    say(desk, "a.jpg", "red")
    say(desk, "a.jpg", "black", origin="browse", days=1)
    (version,) = measured(desk).groups["color"].versions
    assert version.total.exact == Share(0, 1)
    latest = desk.store.corrections.in_force([image_id("a.jpg")])[image_id("a.jpg"), "color"].id
    desk.store.corrections.undo([latest], by="ann", now=desk.now + timedelta(days=2))
    (version,) = measured(desk).groups["color"].versions
    assert version.total.exact == Share(1, 1)


def test_a_version_is_not_measured_by_what_it_may_have_learned_from(desk: Desk) -> None:
    desk.arrive({"a.jpg": ("red", "boot"), "b.jpg": ("red", "boot")})
    say(desk, "a.jpg", "black")
    later = desk.now + timedelta(days=5)
    new = "9" * 64
    desk.promote(new, "2", later, {"a.jpg": "black", "b.jpg": "red"})
    assert [v.version for v in measured(desk).groups["color"].versions] == ["1"]
    say(desk, "b.jpg", "red", days=6)
    newest, first = measured(desk).groups["color"].versions
    assert (newest.version, newest.live, newest.total.exact) == ("2", True, Share(1, 1))
    # The earlier version had predicted it as well.
    assert (first.version, first.live, first.total.exact) == ("1", False, Share(1, 2))
