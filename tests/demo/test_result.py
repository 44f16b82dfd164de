from __future__ import annotations

from shoetagger.demo.result import quality

GROUPS = {"color": ("red", "blue"), "style": ("boot", "heel")}


def test_a_picture_is_right_in_a_group_with_every_true_tag_and_no_other() -> None:
    truth = {
        "a.jpg": frozenset({"red", "boot"}),
        "b.jpg": frozenset({"red", "blue", "boot", "heel"}),
        "c.jpg": frozenset({"blue", "heel"}),
        "d.jpg": frozenset({"blue", "heel"}),
    }
    predicted = {
        "a.jpg": {"color": ("red",), "style": ("boot",)},
        "b.jpg": {"color": ("blue",), "style": ("heel", "boot")},  # one colour is missing
        "c.jpg": {"color": ("blue", "red"), "style": ("heel",)},  # one colour is too many
    }  # d.jpg is not tagged
    title, color, style, everywhere = quality(predicted, truth, GROUPS)
    assert "drawn to show" in title
    assert color.startswith("color   1 of 4 right")
    assert color.endswith("micro F1 0.67")  # 3 hits, 4 predicted tags, 5 true ones
    assert style.startswith("style   3 of 4 right")
    assert style.endswith("micro F1 0.89")  # 4 hits, 4 predicted tags, 5 true ones
    assert everywhere.startswith("all     1 of 4 right in every group")


def test_without_any_predicted_tag_nothing_is_right() -> None:
    _, color, style, everywhere = quality({}, {"a.jpg": frozenset({"red", "boot"})}, GROUPS)
    for line in (color, style, everywhere):
        assert " 0 of 1 right" in line
    assert "micro F1 0.00" in color
