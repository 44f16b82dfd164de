"""`shoetagger tag`: tags files with bundles or champions, and stores nothing."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer
from more_itertools import chunked
from tqdm import tqdm

from ..config.settings import Settings
from ..errors import ShoetaggerError
from ..ops.installation import Installation, opened

if TYPE_CHECKING:
    from ..inference.engine import Engine, Prediction
    from ..ingest.pool import Decoded


class Format(StrEnum):
    TABLE = "table"
    JSONL = "jsonl"
    CSV = "csv"


def tag(
    paths: Annotated[
        list[Path], typer.Argument(exists=True, help="Pictures, or folders of them (recursively).")
    ],
    format: Annotated[Format, typer.Option(help="How to print the tags.")] = Format.TABLE,
    bundle: Annotated[
        list[Path] | None,
        typer.Option(
            exists=True, file_okay=False, help="Use this bundle (models/color); may be repeated."
        ),
    ] = None,
    scores: Annotated[
        bool,
        typer.Option("--scores", help="Print a column per tag in the CSV; JSON lines have them."),
    ] = False,
) -> None:
    """Tag pictures with the champions, or with the bundles named; nothing is stored."""
    from ..inference.engine import Engine
    from ..ingest.batches import decode_pool, prefetched

    if scores and format is Format.TABLE:
        raise ShoetaggerError("--scores needs --format csv (or jsonl, which always has them)")
    with opened(Settings.from_environment()) as here:
        params = here.params
        directories, versions = (bundle, {}) if bundle else _champions(here)
    engine = Engine(directories, here.settings.device, params.tag.precision)
    groups = [b.group for b in engine.bundles]
    if twice := {group for group in groups if groups.count(group) > 1}:
        raise ShoetaggerError(
            f"two bundles of group {', '.join(sorted(twice))} were named: name one per group"
        )
    numbers = {b.group: versions.get(b.digest, b.digest[:12]) for b in engine.bundles}
    files = list(_files(paths))
    scored = [tag for b in engine.bundles for tag in b.tags] if scores else []
    out = _Output(format, sys.stdout, list(numbers), scored)
    # A file named on the command line may be a link that leads anywhere, and is read as it is now.
    pool = decode_pool(params, engine.transforms, Path("/"), settle_seconds=0.0)
    with pool, _bar(len(files)) as bar:
        # The same file named twice is two lines: results come in the order given.
        names = iter(files)
        batches = chunked(pool.run(locator for _, locator in files), params.tag.batch_size)
        for batch, predictions in prefetched(batches, partial(_predict, engine)):
            for line in _lines(
                engine, batch, predictions, [next(names)[0] for _ in batch], numbers
            ):
                out.write(line)
            bar.update(len(batch))
    out.close()


def _champions(installation: Installation) -> tuple[list[Path], dict[str, str]]:
    """Return the folders of the live bundles, and their versions by digest."""
    from ..promotion.versions import bundle_directory

    store, registry = installation.store, installation.registry
    live = store.ledger.live()
    digests = [live[group] for group in installation.params.groups if group in live]
    if not digests:
        raise ShoetaggerError(
            "no champion yet: train first (`make up`, then trigger train_tag_models), or name "
            "bundles that `dvc repro` made: --bundle models/color"
        )
    versions = {v.digest: v.version or "?" for v in store.ledger.versions()}
    bundles = installation.settings.bundles
    return [bundle_directory(store, registry, bundles, digest) for digest in digests], versions


def _files(paths: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """Yield the name to print and the locator of every file named or found in a folder named."""
    from ..ingest.folder import locator_of, path_of, scan

    for path in paths:
        if not path.is_dir():
            yield str(path), locator_of(path)
            continue
        found = sorted(arrival.locator for arrival in scan(path))
        absolute = path_of(locator_of(path))
        for locator in found:
            yield str(path / path_of(locator).relative_to(absolute)), locator


@dataclass(frozen=True)
class _Line:
    """The output for one file."""

    path: str
    image_id: str | None
    rejected: str | None
    predictions: dict[str, Prediction]  # by group
    scores: dict[str, float]  # by tag
    versions: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        if self.rejected is not None:
            return {"path": self.path, "rejected": self.rejected}
        return {
            "path": self.path,
            "image_id": self.image_id,
            "tags": {group: list(found.tags) for group, found in self.predictions.items()},
            "scores": self.scores,
            "versions": self.versions,
        }


def _predict(engine: Engine, batch: list[Decoded]) -> dict[str, list[Prediction]]:
    from ..ingest.batches import stack_views

    good = [decoded for decoded in batch if decoded.views is not None]
    return engine.predict(stack_views(engine, good)) if good else {}


def _lines(
    engine: Engine,
    batch: list[Decoded],
    predictions: dict[str, list[Prediction]],
    names: list[str],
    versions: dict[str, str],
) -> Iterator[_Line]:
    place = 0
    for decoded, name in zip(batch, names, strict=True):
        if decoded.views is None:
            yield _Line(name, None, decoded.rejected or decoded.why or "unreadable", {}, {}, {})
            continue
        pairs = [(bundle, predictions[bundle.digest][place]) for bundle in engine.bundles]
        scores = {t: score for b, p in pairs for t, score in zip(b.tags, p.scores, strict=True)}
        by_group = {bundle.group: prediction for bundle, prediction in pairs}
        yield _Line(name, decoded.image_id, None, by_group, scores, versions)
        place += 1


class _Output:
    """Prints lines in one of the formats, as they come."""

    def __init__(
        self, format: Format, stream: TextIO, groups: list[str], scored: list[str]
    ) -> None:
        self._format, self._stream, self._groups, self._scored = format, stream, groups, scored
        # Names of files may hold bytes that are no text; they are shown escaped, never refused.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
        self._rows = csv.writer(stream, lineterminator="\n")
        if format is Format.CSV:
            self._rows.writerow(
                ["path", "image_id", *groups, "rejected", *(f"score_{tag}" for tag in scored)]
            )

    def write(self, line: _Line) -> None:
        from ..publishing.csv_lines import defused
        from ..publishing.rows import printable

        if self._format is Format.JSONL:
            print(json.dumps(line.as_dict()), file=self._stream)
        elif self._format is Format.CSV:
            tags = [
                " ".join(line.predictions[g].tags) if line.predictions else "" for g in self._groups
            ]
            numbers = [line.scores.get(tag) for tag in self._scored]
            scores = ["" if number is None else f"{number:.6f}" for number in numbers]
            cells = [line.path, line.image_id or "", *tags, line.rejected or "", *scores]
            self._rows.writerow(map(defused, cells))
        elif line.rejected is not None:
            print(f"{printable(line.path)}\n    rejected: {line.rejected}", file=self._stream)
        else:
            groups = [f"{g}: {' '.join(a.tags)}" for g, a in line.predictions.items()]
            print(f"{printable(line.path)}\n    {' | '.join(groups)}", file=self._stream)

    def close(self) -> None:
        self._stream.flush()


def _bar(total: int) -> tqdm[Any]:
    return tqdm(total=total, desc="tagging", unit=" files", disable=None, dynamic_ncols=True)
