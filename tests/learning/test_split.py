from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoetagger.config.recipe import Split
from shoetagger.learning.dataset.folds import fold
from shoetagger.learning.dataset.labels import Labels
from shoetagger.learning.dataset.split import SplitError, side, split_group
from shoetagger.learning.dataset.tables import read_split, write_split

SPLIT = Split(seed=1, validation=0.2, folds=5)


def image_ids(count: int, prefix: str = "") -> list[str]:
    return [hashlib.sha256(f"{prefix}{i}".encode()).hexdigest() for i in range(count)]


def labelled(columns: dict[str, Sequence[int]], names: Sequence[str] | None = None) -> Labels:
    matrix = np.array(list(columns.values()), dtype=np.uint8).T
    names = names or [f"{i:04d}.jpg" for i in range(len(matrix))]
    return Labels(tuple(names), tuple(columns), matrix, ())


def on_side(wanted: str, count: int) -> list[str]:
    return [i for i in image_ids(100 * count) if side(i, SPLIT) == wanted][:count]


def test_the_shares_are_as_configured_and_fold_does_not_depend_on_side() -> None:
    ids = image_ids(4000)
    validation = [i for i in ids if side(i, SPLIT) == "validation"]
    assert 0.17 < len(validation) / len(ids) < 0.23
    for some in (validation, ids):
        shares = np.bincount([fold(i, SPLIT) for i in some], minlength=5) / len(some)
        assert len(shares) == 5
        assert (abs(shares - 0.2) < 0.05).all()


def test_each_repeat_divides_the_pictures_anew_and_as_evenly() -> None:
    ids = image_ids(4000)
    first, second, third = (np.array([fold(i, SPLIT, repeat) for i in ids]) for repeat in range(3))
    assert list(first) == [fold(i, SPLIT) for i in ids]
    for one, other in ((first, second), (first, third), (second, third)):
        # Independent: one picture in five is in the same fold, and so in each fold.
        shares = [(one == other)[one == number].mean() for number in range(5)]
        assert np.abs(np.array(shares) - 0.2).max() < 0.06
    again = [fold(i, replace(SPLIT, seed=2), 1) for i in ids]
    assert again != list(second)


def test_without_folds_the_fold_is_0() -> None:
    assert {fold(i, Split(1, 0.2, 0)) for i in image_ids(20)} == {0}


def test_another_seed_gives_another_split() -> None:
    ids = image_ids(100)
    assert [side(i, SPLIT) for i in ids] != [side(i, Split(2, 0.2, 5)) for i in ids]
    assert [fold(i, SPLIT) for i in ids] != [fold(i, Split(2, 0.2, 5)) for i in ids]


def test_rows_added_later_move_nothing_and_the_order_of_rows_is_of_no_account() -> None:
    rng = np.random.default_rng(0)
    ids = image_ids(300)
    a, b = rng.integers(0, 2, (2, 300))
    names = [f"{i:04d}.jpg" for i in range(300)]
    few, _ = split_group(
        labelled({"a": a[:200], "b": b[:200]}, names[:200]), ids[:200], "ab", SPLIT
    )
    order = rng.permutation(300)
    many, _ = split_group(
        labelled({"b": b[order], "a": a[order]}, [names[i] for i in order]),
        [ids[i] for i in order],
        "ab",
        SPLIT,
    )
    assert list(many.columns) == ["image_name", "image_id", "side", "fold", "a", "b"]
    assert many["image_name"].tolist() == names
    assert many["a"].tolist() == a.tolist()
    assert few.equals(many[:200])


def test_a_tag_without_a_positive_on_a_side_gets_the_one_with_the_lowest_hash() -> None:
    ids = [*on_side("train", 30), *on_side("validation", 10)]
    rare_in_validation = [1, 1, 1] + [0] * 37
    rare_in_training = [0] * 38 + [1, 1]
    even = [1, 0] * 20
    tags = {"red": rare_in_validation, "tan": rare_in_training, "boot": even}
    table, report = split_group(labelled(tags), ids, ["red", "boot"], SPLIT)
    (moved,) = table.index[table["side"] != [side(i, SPLIT) for i in ids]]
    assert moved in (0, 1, 2)

    def hashed(position: int) -> str:
        return hashlib.sha256(f"1:side:{ids[position]}".encode()).hexdigest()

    assert hashed(moved) == min(hashed(i) for i in (0, 1, 2))
    assert report == [
        "tag 'red': none of its 3 pictures fell on the validation side, "
        f"so '000{moved}.jpg' moved there from train"
    ]
    table, report = split_group(labelled(tags), ids, ["tan"], SPLIT)
    assert (table.loc[table["tan"] == 1, "side"] == "train").sum() == 1
    assert "so '00" in report[0]
    assert "moved there from validation" in report[0]
    assert split_group(labelled(tags), ids, ["boot"], SPLIT)[1] == []


def test_a_move_does_not_take_the_last_positive_of_another_tag() -> None:
    ids = [*on_side("train", 20), *on_side("validation", 5)]
    for shared in range(3):
        a = [0] * 25
        b = [0] * 25
        a[0] = a[shared] = a[5] = 1
        b[shared] = b[7] = 1
        table, _ = split_group(labelled({"a": a, "b": b}), ids, "ab", SPLIT)
        for tag in "ab":
            assert set(table.loc[table[tag] == 1, "side"]) == {"train", "validation"}


def test_tags_that_cannot_all_have_a_positive_on_either_side_are_refused_by_name() -> None:
    ids = on_side("train", 10)
    a, b, c = np.zeros((3, 10), dtype=int)
    a[[0, 1]] = b[[1, 2]] = c[[0, 2]] = 1
    with pytest.raises(SplitError, match="share so few pictures"):
        split_group(labelled({"a": a, "b": b, "c": c}), ids, "abc", SPLIT)


@pytest.mark.slow
@settings(deadline=None, max_examples=40)  # a busy machine is no failure
@given(st.data())
def test_every_tag_ends_with_a_positive_on_either_side_or_there_is_a_clear_refusal(
    data: st.DataObject,
) -> None:
    count = data.draw(st.integers(1, 12))
    row = st.lists(st.integers(0, 1), min_size=count, max_size=count)
    tags = {tag: data.draw(row) for tag in "abc"}
    ids = image_ids(count, str(data.draw(st.integers(0, 50))))
    try:
        table, report = split_group(labelled(tags), ids, "abc", SPLIT)
    except SplitError:
        return
    for tag in "abc":
        for on in ("train", "validation"):
            values = table.loc[table["side"] == on, tag]
            assert set(values) == {0, 1}
    moved = (table["side"] != [side(i, SPLIT) for i in table["image_id"]]).sum()
    assert len(report) == moved


@pytest.mark.parametrize(("positives", "words"), [(0, "no picture"), (1, "1 picture")])
def test_a_tag_with_fewer_than_2_positives_is_refused_together_with_all_such_tags(
    positives: int, words: str
) -> None:
    rare = [1] * positives + [0] * (40 - positives)
    with pytest.raises(SplitError) as caught:
        split_group(
            labelled({"red": rare, "boot": [1, 0] * 20, "tan": rare}),
            image_ids(40),
            ["red", "boot", "tan"],
            SPLIT,
        )
    assert f"tag 'red' has {words}" in str(caught.value)
    assert f"tag 'tan' has {words}" in str(caught.value)
    assert "boot" not in str(caught.value)


def test_the_same_bytes_under_two_names_count_once_and_stay_together() -> None:
    ids = image_ids(40)
    ids[1] = ids[0]
    red = [1, 1] + [0] * 38
    with pytest.raises(SplitError, match="'red' has 1 picture"):
        split_group(labelled({"red": red}), ids, ["red"], SPLIT)
    red[2] = 1
    red[1] = 0
    table, report = split_group(labelled({"red": red}), ids, ["red"], SPLIT)
    assert table["side"][0] == table["side"][1]
    assert "'0000.jpg', '0001.jpg' are the same picture with different tags: red" in report


def test_a_tag_that_every_picture_has_is_refused() -> None:
    with pytest.raises(SplitError, match="'shoe' is ticked for all of the train side"):
        split_group(labelled({"shoe": [1] * 40}), image_ids(40), ["shoe"], SPLIT)


def test_five_pictures_are_refused_in_a_sentence() -> None:
    ids = on_side("train", 5)
    with pytest.raises(SplitError, match=r"'a' is ticked for all of the validation side \(1 pict"):
        split_group(labelled({"a": [1, 1, 0, 0, 0]}), ids, "a", SPLIT)
    with pytest.raises(SplitError, match="tag 'c' has 1 picture"):
        split_group(labelled({"c": [1, 0, 0, 0, 0]}), ids, "c", SPLIT)


def test_twenty_thousand_pictures_are_no_trouble() -> None:
    ids, rng = image_ids(20_000), np.random.default_rng(0)
    tags = {f"tag{i}": (rng.random(20_000) < 0.1).astype(int) for i in range(7)}
    table, report = split_group(labelled(tags), ids, list(tags), SPLIT)
    assert len(table) == 20_000
    assert report == []


def test_a_table_survives_its_file_with_any_name(tmp_path: Path) -> None:
    names = ["NA", "null", "007", 'a "b", c.jpg', " ä.jpg"]
    ids = ["1" * 64, "0" * 63 + "1", "1e" + "5" * 62, *image_ids(2)]
    labels = labelled({"a": [1, 0, 1, 0, 1], "b": [0, 1, 0, 1, 0]}, names)
    for seed in range(40):
        try:
            table, _ = split_group(labels, ids, "ab", Split(seed, 0.4, 2))
            break
        except SplitError:
            continue
    write_split(table, tmp_path / "group.csv")
    assert read_split(tmp_path / "group.csv").equals(table)


def test_chosen_pictures_are_learned_from_and_validate_nothing() -> None:
    ids = on_side("validation", 3) + on_side("train", 3)
    labels = labelled({"a": [1, 1, 0, 1, 1, 0]})
    origins = ("queue", "", "random", "browse", "", "")
    table, _ = split_group(replace(labels, origins=origins), ids, "a", SPLIT)
    assert table["side"].tolist() == ["train", "validation", "validation", *["train"] * 3]


def test_a_tag_that_only_chosen_pictures_have_is_not_measured_and_says_so() -> None:
    ids = on_side("validation", 4) + on_side("train", 4)
    labels = labelled({"a": [1, 0, 1, 0, 1, 0, 1, 0], "rare": [0, 1, 0, 0, 0, 1, 0, 0]})
    origins = ("", "queue", "", "", "", "queue", "", "")
    table, report = split_group(replace(labels, origins=origins), ids, ["a", "rare"], SPLIT)
    assert set(table.loc[table["rare"] == 1, "side"]) == {"train"}
    assert report == [
        "tag 'rare': people chose all of its pictures, so none can validate it: it is learned and "
        "not measured"
    ]
