"""A challenger and the champion on the same pictures: labelled ones, and arrivals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from more_itertools import chunked

from ..config import recipe
from ..config.params import Params
from ..config.places import Place
from ..learning.dataset.split import side
from ..learning.dataset.tables import (
    read_scores_by_image,
    read_split,
)
from ..pipeline import dvc_files
from ..store.rows import TagChange, TaggedImage
from .checked import OnChecked, scores_of_checked
from .paired import PairedMetrics, TagDiff, paired_metrics

if TYPE_CHECKING:
    from ..inference.bundle import Bundle
    from ..inference.engine import Engine
    from ..learning.evaluation.contact_sheet import Shown


_BATCH = 64
_SHOWN = 36  # pictures on the contact sheet of changes


@dataclass(frozen=True)
class Contender:
    """One of the two: its bundle's folder, and what the registry has of its training.

    That is its out-of-fold scores, as `out_of_fold` returned them, and ids of pictures that it is
    known to have trained on.
    """

    directory: Path
    out_of_fold: str | None
    trained_on: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Arrivals:
    """How the tags of arrivals change; `unread` of the sample could not be read again."""

    diff: TagDiff
    unread: int
    changes: tuple[TagChange, ...]
    shown: tuple[Shown, ...]  # the first of the changes


@dataclass(frozen=True)
class SideBySide:
    """What running both gave, on the tags that both have.

    `out_of_fold` holds those that are not measurable on the validation side; None where there are
    none, or where one contender has no such scores. `left_out` validation pictures were not used,
    for one of the two trained on them.
    """

    validation: PairedMetrics
    left_out: int
    out_of_fold: PairedMetrics | None
    new_tags: tuple[str, ...]
    dropped_tags: tuple[str, ...]
    arrivals: Arrivals
    checked: OnChecked


def side_by_side(
    params: Params,
    checkout: Path,
    *,
    challenger: Contender,
    champion: Contender,
    sample: Sequence[TaggedImage],
    checked: Sequence[TaggedImage],
    inbox: Place,
    device: str,
) -> SideBySide:
    """Run both on today's validation pictures and on arrivals.

    `sample` holds arrivals with the tags that the champion gave them, `checked` those with the tags
    that people gave them.
    """
    from ..inference.engine import Engine

    engine = Engine([challenger.directory, champion.directory], device, params.tag.precision)
    bundles = new, old = engine.bundles
    tags = [tag for tag in new.tags if tag in old.tags]
    table = read_split(dvc_files.outputs(checkout, "split")["split"] / f"{new.group}.csv")

    def compared(truth: np.ndarray, scores: Sequence[np.ndarray], tags: list[str]) -> PairedMetrics:
        of_new, of_old = (_predicted(b, s, tags) for b, s in zip(bundles, scores, strict=True))
        return paired_metrics(
            truth,
            of_new,
            of_old,
            tags,
            min_positives=params.promote.min_positives,
            bootstrap=params.promote.bootstrap,
            seed=params.split.seed,
        )

    held_out = _held_out(table, params.split)
    seen = held_out["image_id"].isin(challenger.trained_on | champion.trained_on)
    held_out = held_out[~seen]
    images = dvc_files.data_folder(checkout) / "images"
    scores = _scores(engine, params, [images / name for name in held_out["image_name"]])
    validation = compared(
        held_out[tags].to_numpy(np.uint8), [scores[bundle.digest] for bundle in bundles], tags
    )

    rare = [row.tag for row in validation.tags if row.f1 is None]
    rare_metrics = None
    if rare and challenger.out_of_fold is not None and champion.out_of_fold is not None:
        texts = challenger.out_of_fold, champion.out_of_fold
        truth, common = _common(table, [read_scores_by_image(text) for text in texts])
        columns = [s[list(b.tags)].to_numpy() for s, b in zip(common, bundles, strict=True)]
        rare_metrics = compared(truth[rare].to_numpy(np.uint8), columns, rare)

    said = scores_of_checked(
        engine,
        checked,
        tags,
        learned=_learned(table, challenger, champion),
        params=params,
        inbox=inbox,
    )
    by_people = compared(said.truth, [said.scores[bundle.digest] for bundle in bundles], tags)
    return SideBySide(
        validation,
        int(seen.sum()),
        rare_metrics,
        new_tags=tuple(tag for tag in new.tags if tag not in old.tags),
        dropped_tags=tuple(tag for tag in old.tags if tag not in new.tags),
        arrivals=_on_arrivals(engine, new, params, sample, inbox),
        checked=OnChecked(by_people, said.learned, said.unread),
    )


def _common(
    table: pd.DataFrame, scores: Sequence[pd.DataFrame]
) -> tuple[pd.DataFrame, list[pd.DataFrame]]:
    """Return the rows of the labelled pictures that all have scored, in one order."""
    truth = table.drop_duplicates("image_id").set_index("image_id")
    ids = [i for i in truth.index if all(i in s.index for s in scores)]
    return truth.loc[ids], [s.loc[ids] for s in scores]


def _learned(table: pd.DataFrame, *contenders: Contender) -> set[str]:
    """Return the ids of the training side today, and of all that the contenders trained on."""
    learned = set(table.loc[table["side"] == "train", "image_id"])
    for contender in contenders:
        learned |= contender.trained_on
        if contender.out_of_fold is not None:
            learned |= set(read_scores_by_image(contender.out_of_fold).index)
    return learned


def _held_out(table: pd.DataFrame, split: recipe.Split) -> pd.DataFrame:
    """Return the validation pictures that were on no other side, nor are today."""
    # By hash, not by the table: a positive that moved to this side today was trained on before.
    by_hash = table["image_id"].map(lambda image_id: side(image_id, split)) == "validation"
    return table[by_hash & (table["side"] == "validation")]


def _predicted(bundle: Bundle, scores: np.ndarray, tags: Sequence[str]) -> np.ndarray:
    """Predict as the bundle does, all its tags at once; return the columns of `tags`."""
    return bundle.predict(scores)[:, [bundle.tags.index(tag) for tag in tags]]


def _scores(engine: Engine, params: Params, files: Sequence[Path]) -> dict[str, np.ndarray]:
    """Return for each bundle digest the scores (N, tags) of labelled pictures."""
    from ..images.decode import Limits, open_image
    from ..images.views import tagging_view

    limits = Limits.of(params.images)
    parts = {b.digest: [np.zeros((0, len(b.tags)), np.float32)] for b in engine.bundles}
    for start in range(0, len(files), _BATCH):
        batch = files[start : start + _BATCH]
        views = {
            t: np.stack(
                [
                    tagging_view(open_image(f.read_bytes(), limits, longest=t.longest), t)
                    for f in batch
                ]
            )
            for t in engine.transforms
        }
        for digest, scores in engine.score(views).items():
            parts[digest].append(scores)
    return {digest: np.concatenate(batches) for digest, batches in parts.items()}


def _on_arrivals(
    engine: Engine, challenger: Bundle, params: Params, sample: Sequence[TaggedImage], inbox: Place
) -> Arrivals:
    """Tag a sample of what the champion has tagged with the challenger, and note the changes."""
    from ..ingest.batches import decode_pool
    from ..ingest.places import name_of
    from ..learning.evaluation.contact_sheet import Shown

    diff, unread, changes, shown = TagDiff(), 0, list[TagChange](), list[Shown]()
    if not sample:
        return Arrivals(diff, unread, (), ())
    # Decoded for the challenger alone, as a night would: another view could mean larger decoding.
    pool = decode_pool(params, [challenger.transform], inbox, settle_seconds=0.0)
    rows = iter(sample)
    with pool:
        decoded = pool.run(row.locator for row in sample)
        for batch in chunked(zip(rows, decoded, strict=True), params.tag.batch_size):
            # A file that was replaced since is another picture.
            good = [(row, d.views[0]) for row, d in batch if d.views and d.image_id == row.image_id]
            unread += len(batch) - len(good)
            if not good:
                continue
            views = {challenger.transform: np.stack([view for _, view in good])}
            predictions = engine.predict(views, only={challenger.digest})[challenger.digest]
            for (row, view), prediction in zip(good, predictions, strict=True):
                if not diff.add(row.tags, prediction.tags):
                    continue
                changes.append(TagChange(row.image_id, row.tags, prediction.tags))
                if len(shown) < _SHOWN:
                    name = name_of(row.locator)
                    shown.append(Shown(name, view.copy(), row.tags, prediction.tags))
    return Arrivals(diff, unread, tuple(changes), tuple(shown))
