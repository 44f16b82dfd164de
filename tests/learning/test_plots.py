"""Plots show any tag, letter by letter."""

from __future__ import annotations

import io

import numpy as np

from shoetagger.learning.evaluation import plots

TAGS = (r"$\foo$", r"a $ b $ \bar{", "größe (4½)")


def test_tags_are_no_formulas() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, (30, 3)).astype(np.uint8)
    scores = rng.random((30, 3))
    predicted = (scores > 0.5).astype(np.uint8)
    for figure in (
        plots.precision_recall(truth, scores, TAGS, np.ones(3, bool), "title"),
        plots.confusions(truth, predicted, TAGS, "title"),
    ):
        figure.savefig(io.BytesIO(), format="png")
        shown = [text.get_text() for text in figure.findobj(lambda part: hasattr(part, "get_text"))]
        assert any(r"\$\foo\$" in text for text in shown)
