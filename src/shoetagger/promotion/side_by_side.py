"""A challenger and the champion on the same pictures: labelled ones, and arrivals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..config import params, recipe
from ..config.settings import Settings
from ..inference.decision import predict
from ..ingest import inbox
from ..learning.dataset.split import side
from ..learning.dataset.tables import (
    read_scores,
    read_scores_by_image,
    read_split,
    scores_by_image,
)
from ..pipeline import dvc_files
from ..store.store import Store
from .paired import Paired, TagDiff, paired

if TYPE_CHECKING:
    from ..inference.bundle import Bundle
    from ..inference.engine import Engine
    from ..learning.evaluation.plots import Shown


_BATCH = 64
_SHOWN = 36  # pictures on the contact sheet of changes


@dataclass(frozen=True)
class Side:
    """One of the two: its bundle's folder, and its out-of-fold scores as `out_of_fold` gave."""

    directory: Path
    out_of_fold: str | None


@dataclass(frozen=True)
class Arrivals:
    """How the tags of arrivals change; `unread` of the sample could not be read again."""

    diff: TagDiff
    unread: int
    shown: tuple[Shown, ...]


@dataclass(frozen=True)
class Trial:
    """What came of it. Compared are the tags that both have.

    `out_of_fold` holds those that are not measurable on the validation side; None where there are
    none, or where one of the two has no such scores.
    """

    validation: Paired
    out_of_fold: Paired | None
    new_tags: tuple[str, ...]
    dropped_tags: tuple[str, ...]
    arrivals: Arrivals


def hold(
    settings: Settings, options: params.Params, checkout: Path, challenger: Side, champion: Side
) -> Trial:
    """Let both decide on today's validation pictures, and the challenger on tagged arrivals.

    What the champion says of the arrivals is in the store.
    """
    from ..inference.engine import Engine

    sides = [challenger.directory, champion.directory]
    engine = Engine(sides, settings.device, options.tag.precision)
    bundles = mine, theirs = engine.bundles
    tags = [tag for tag in mine.tags if tag in theirs.tags]
    table = read_split(dvc_files.outputs(checkout, "split")["split"] / f"{mine.group}.csv")

    def compared(truth: pd.DataFrame, scores: Sequence[np.ndarray], tags: list[str]) -> Paired:
        ours, others = (_decisions(b, s, tags) for b, s in zip(bundles, scores, strict=True))
        return paired(
            truth[tags].to_numpy(dtype=np.uint8),
            ours,
            others,
            tags,
            min_positives=options.promote.min_positives,
            bootstrap=options.promote.bootstrap,
            seed=options.split.seed,
        )

    held_out = _held_out(table, options.split)
    images = dvc_files.data_folder(checkout) / "images"
    scores = _scores(engine, options, [images / name for name in held_out["image_name"]])
    validation = compared(held_out, [scores[bundle.digest] for bundle in bundles], tags)

    rare = [found.tag for found in validation.tags if found.figures is None]
    out_of_fold = None
    if rare and challenger.out_of_fold is not None and champion.out_of_fold is not None:
        texts = challenger.out_of_fold, champion.out_of_fold
        truth, both = _common(table, [read_scores_by_image(text) for text in texts])
        found_scores = [s[list(b.tags)].to_numpy() for s, b in zip(both, bundles, strict=True)]
        out_of_fold = compared(truth, found_scores, rare)
    return Trial(
        validation,
        out_of_fold,
        new_tags=tuple(tag for tag in mine.tags if tag not in theirs.tags),
        dropped_tags=tuple(tag for tag in theirs.tags if tag not in mine.tags),
        arrivals=_on_arrivals(settings, options, theirs.digest, challenger.directory),
    )


def out_of_fold(checkout: Path, group: str) -> str | None:
    """Return the out-of-fold scores of a trained group as CSV: image_id, then a column per tag.

    They go with the version into the registry, so that later versions can be compared with them.
    None where there is no cross-validation (split.folds: 0).
    """
    scores = read_scores(dvc_files.outputs(checkout, f"crossval@{group}")[f"{group}.csv"])
    return scores_by_image(
        scores, read_split(dvc_files.outputs(checkout, "split")["split"] / f"{group}.csv")
    )


def _common(
    table: pd.DataFrame, scores: Sequence[pd.DataFrame]
) -> tuple[pd.DataFrame, list[pd.DataFrame]]:
    """Return the rows of the labelled pictures that all have scored, in one order."""
    truth = table.drop_duplicates("image_id").set_index("image_id")
    ids = [i for i in truth.index if all(i in s.index for s in scores)]
    return truth.loc[ids], [s.loc[ids] for s in scores]


def _held_out(table: pd.DataFrame, split: recipe.Split) -> pd.DataFrame:
    """Return the validation pictures that no version ever trained on."""
    # By hash, not by the table: a positive that moved to this side today was trained on before.
    by_hash = table["image_id"].map(lambda image_id: side(image_id, split)) == "validation"
    return table[by_hash & (table["side"] == "validation")]


def _decisions(bundle: Bundle, scores: np.ndarray, tags: Sequence[str]) -> np.ndarray:
    """Decide as the bundle does, on all its tags; return the columns of `tags`."""
    return predict(scores, bundle.thresholds)[:, [bundle.tags.index(tag) for tag in tags]]


def _scores(engine: Engine, options: params.Params, files: Sequence[Path]) -> dict[str, np.ndarray]:
    """Return for each bundle digest the scores (N, tags) of labelled pictures."""
    from ..images.decode import Limits, open_picture
    from ..images.views import tagging_view

    limits = Limits.of(options.images)
    found = {b.digest: [np.zeros((0, len(b.tags)), np.float32)] for b in engine.bundles}
    for start in range(0, len(files), _BATCH):
        batch = files[start : start + _BATCH]
        views = {
            t: np.stack(
                [
                    tagging_view(open_picture(f.read_bytes(), limits, longest=t.size), t)
                    for f in batch
                ]
            )
            for t in engine.transforms
        }
        for digest, scores in engine.score(views).items():
            found[digest].append(scores)
    return {digest: np.concatenate(parts) for digest, parts in found.items()}


def _on_arrivals(
    settings: Settings, options: params.Params, champion: str, challenger: Path
) -> Arrivals:
    """Tag a sample of what the champion has tagged with the challenger, and note the changes."""
    from ..inference.engine import Engine
    from ..ingest.batches import batched, decode_pool, stack_views
    from ..learning.evaluation.plots import Shown

    with Store(settings.store_url) as store:
        sample = store.predictions.sample_tagged(champion, options.promote.sample)
    diff, unread, shown = TagDiff(), 0, list[Shown]()
    if not sample:
        return Arrivals(diff, unread, ())
    engine = Engine([challenger], settings.device, options.tag.precision)
    (bundle,) = engine.bundles
    rows = iter(sample)
    pool = decode_pool(options, engine.transforms, settings.inbox, settle_seconds=0.0)
    with pool:
        decoded = pool.run(row.locator for row in sample)
        for batch in batched(zip(rows, decoded, strict=True), options.tag.batch_size):
            # A file that was replaced since is another picture.
            good = [(row, d) for row, d in batch if d.views and d.image_id == row.image_id]
            unread += len(batch) - len(good)
            if not good:
                continue
            answers = engine.predict(stack_views(engine, [d for _, d in good]))[bundle.digest]
            for (row, d), answer in zip(good, answers, strict=True):
                if diff.add(row.tags, answer.tags) and d.views and len(shown) < _SHOWN:
                    name = inbox.path_of(row.locator).name
                    shown.append(Shown(name, d.views[0].copy(), row.tags, answer.tags))
    return Arrivals(diff, unread, tuple(shown))
