"""Learning curves of a training."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from .fit import Epoch


def learning_curves(epochs: Sequence[Epoch]) -> Figure:
    """Draw the loss of both sides over the epochs."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    numbers = [epoch.number for epoch in epochs]
    axes.plot(numbers, [e.train_loss for e in epochs], label="training")
    told = [(e.number, e.validation_loss) for e in epochs if e.validation_loss is not None]
    if told:
        axes.plot(*zip(*told, strict=True), label="validation (only told, never chosen by)")
    axes.set(xlabel="epoch", ylabel="binary cross-entropy", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
