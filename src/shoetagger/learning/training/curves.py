"""Learning curves."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from .fit import Epoch


def learning_curves(epochs: Sequence[Epoch]) -> Figure:
    """Draw the losses of the training and validation sides over the epochs."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    numbers = [epoch.number for epoch in epochs]
    axes.plot(numbers, [e.train_loss for e in epochs], label="training")
    validation = [(e.number, e.validation_loss) for e in epochs if e.validation_loss is not None]
    if validation:
        axes.plot(*zip(*validation, strict=True), label="validation (chooses nothing)")
    axes.set(xlabel="epoch", ylabel="binary cross-entropy", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
