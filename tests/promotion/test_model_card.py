"""The model card says in words how far each tag can be trusted."""

from __future__ import annotations

import pandas as pd

from shoetagger.images.views import Transform
from shoetagger.inference.bundle import Bundle
from shoetagger.network.origin import Origin
from shoetagger.promotion.model_card import LONGEST, model_card
from shoetagger.promotion.register import _backbone

TAGS = ("boot", "a_b", "never")


def predictions() -> pd.DataFrame:
    """Ten pictures out of fold: boot is predicted of five and true of four, three are both."""
    true = {"boot": [1, 1, 1, 1] + [0] * 6, "a_b": [0] * 9 + [1], "never": [0] * 10}
    predicted = {"boot": [1, 1, 1, 0, 1, 1] + [0] * 4, "a_b": [0] * 9 + [1], "never": [0] * 10}
    score = {"boot": [0.9] * 3 + [0.01] + [0.99, 0.8] + [0.1] * 4, "a_b": [0.2] * 10,
             "never": [0.1] * 10}  # fmt: skip
    columns: dict[str, object] = {"image_name": [f"{i}_x.jpg" for i in range(10)]}
    columns |= {"part": "crossval", "repeat": 0}
    for what, values in (("true", true), ("score", score), ("predicted", predicted)):
        columns |= {f"{what} {tag}": values[tag] for tag in TAGS}
    return pd.DataFrame(columns)


def split() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "side": ["train"] * 10 + ["validation"],
            "boot": [1] * 4 + [0] * 6 + [1],
            "a_b": 0,
            "never": 0,
        }
    )


METRICS = {
    "crossval": {"macro_f1": 0.8123, "pictures": 10, "not_measurable": ["a_b", "never"]},
    "validation": {"macro_f1": "not measurable", "pictures": 1},
}
ORIGIN = {"commit": "c" * 40, "data": "d" * 32, "overrides": ""}


def test_the_card_says_how_far_each_tag_can_be_trusted() -> None:
    card = model_card("style", TAGS, METRICS, predictions(), split(), ORIGIN)
    assert "- **boot**: right in 3 of 5, found 3 of 4; learned from 4\n" in card
    assert "- **a\\_b**: right in 1 of 1, found 1 of 1; learned from 0\n" in card
    assert "- **never**: never predicted, and none of the pictures has it; learned from 0" in card
    assert (
        f"- commit: `{'c' * 40}`\n- data: `{'d' * 32}`\n- macro F1 out of fold: 0.812 (not " in card
    )
    assert "(not measurable: a\\_b, never), 10 pictures\n" in card
    assert "overrides" not in card, "there were none"
    mistakes = card[card.index("worst mistakes") :]
    assert mistakes.index("4\\_x.jpg: boot instead of nothing") < mistakes.index("5\\_x.jpg: boot")
    assert "3\\_x.jpg: nothing instead of boot" in mistakes
    assert "0\\_x.jpg" not in mistakes, "that one is right"


def test_of_several_repeats_the_card_gives_mean_counts_and_each_mistake_once() -> None:
    other = predictions().assign(repeat=1)
    other["predicted boot"] = [1, 1, 1, 1, 1, 1, 1] + [0] * 3  # one more that is right, one wrong
    table = pd.concat([predictions(), other])
    card = model_card("style", TAGS, METRICS, table, split(), ORIGIN)
    assert "on the 10 pictures that it was cross-validated with" in card
    assert "- **boot**: right in 4 of 6, found 4 of 4; learned from 4\n" in card
    assert card.count("4\\_x.jpg: boot instead of nothing") == 1


def test_the_card_begins_with_what_the_licence_of_the_weights_forbids() -> None:
    warning = Origin("timm/x", "cc-by-nc-4.0", "timm 1.0.31").warning
    card = model_card("style", TAGS, METRICS, predictions(), split(), ORIGIN, warning)
    before = card[: card.index("- commit:")]
    assert "**The licence of the weights timm/x (cc-by-nc-4.0) forbids commercial use" in before


def test_the_card_says_where_the_weights_of_the_backbone_come_from() -> None:
    bundle = Bundle(
        "style", ("boot",), "timm:convnext_atto", ("layer4",), Transform(size=32), (0.5,), (10,),
        dict.fromkeys(("layer1", "layer2", "layer3", "layer4"), ""), "e" * 64, "1" * 64,
        origin=Origin("timm/convnext_atto.d2_in1k", None, "timm 1.0.31"),
    )  # fmt: skip
    card = model_card("style", TAGS, METRICS, predictions(), split(), ORIGIN | _backbone(bundle))
    assert (
        "- backbone: `timm:convnext_atto, by timm 1.0.31`\n"
        "- pretrained weights: `timm/convnext_atto.d2_in1k`\n"
        f"- their licence: `not stated`\n- their digest: `{'e' * 64}`\n" in card
    )


def test_the_card_of_a_group_with_many_tags_fits_into_mlflows_database() -> None:
    tags = [f"tag {i} {'x' * 90}" for i in range(60)]
    columns = {f"{what} {tag}": 0.0 for what in ("true", "score", "predicted") for tag in tags}
    table = pd.DataFrame({"image_name": ["a.jpg"], "part": ["crossval"], "repeat": 0, **columns})
    learned = pd.DataFrame({"side": ["train"], **dict.fromkeys(tags, 0)})
    card = model_card("many", tags, METRICS, table, learned, ORIGIN)
    assert len(card) == LONGEST
