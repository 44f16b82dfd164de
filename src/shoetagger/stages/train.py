"""Stage `train@group`: one group's model, fitted on the training side."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated

import typer

from ..config import params as parameters
from ..config.settings import Settings
from ..learning.training.fit import Epoch, epochs_of, fit
from ..network.devices import pick_device
from ..network.origin import Origin
from ..network.weights import origin_of, save_weights
from .command import Features, Group, Images, SplitTable, progress, run
from .group import open_group_data
from .mlflow_run import start_run


def main(
    group: Group,
    split: SplitTable,
    images: Images,
    features: Features,
    weights: Annotated[Path, typer.Option(help="safetensors file to write")],
    history: Annotated[Path, typer.Option(help="CSV file of the losses to write")],
) -> None:
    """Fit the group's model and write its weights; losses go to MLflow as they come."""
    from ..learning.training.curves import learning_curves

    params, settings = parameters.load(Path("params.yaml")), Settings.from_environment()
    device = pick_device(settings.device)
    data = open_group_data(params, group, split, images, features, device)
    model, pretrained = data.new_model()
    recipe, epochs = params.train_of(group), list[Epoch]()
    origin = origin_of(recipe.arch, recipe.weights)
    if origin is not None and origin.warning:
        typer.echo(f"{group}: {origin.warning}")
    with (
        start_run(settings, params, group) as tracked,
        progress(epochs_of(recipe), f"train {group}") as bar,
    ):

        def on_epoch(epoch: Epoch) -> None:
            epochs.append(epoch)
            tracked.log_metrics(_metrics(epoch), step=epoch.number)
            bar.set_postfix(loss=f"{epoch.train_loss:.3f}")
            bar.update()

        fit(
            model,
            data.source(model),
            data.examples(data.training),
            data.examples(data.validation),
            recipe,
            device=device,
            on_epoch=on_epoch,
        )
        detector = data.dataset.transform.detector
        beside = detector.read() if detector else None
        digest = save_weights(model, weights, pretrained, beside)
        _write_history(epochs, history)
        tracked.set_tags({"weights_sha256": digest, **_tags(origin)})
        curves = learning_curves(epochs)
        curves.axes[0].set_title(f"How the loss falls while the model of {group} learns")
        tracked.log_figure("learning_curves.png", curves)
    typer.echo(f"{group}: training loss {epochs[-1].train_loss:.4f} after {len(epochs)} rounds")


def _tags(origin: Origin | None) -> dict[str, str]:
    if origin is None:
        return {}
    return {"pretrained": origin.source, "pretrained_license": origin.license or "not stated"}


def _metrics(epoch: Epoch) -> dict[tuple[str, ...], float]:
    losses = {
        ("loss", "train"): epoch.train_loss,
        ("loss", "validation"): epoch.validation_loss,
        ("learning_rate",): epoch.learning_rate,
    }
    return {name: value for name, value in losses.items() if value is not None}


def _write_history(epochs: list[Epoch], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["epoch", "train_loss", "validation_loss"])
        rows.writerows([e.number, e.train_loss, e.validation_loss] for e in epochs)


if __name__ == "__main__":
    run(main)
