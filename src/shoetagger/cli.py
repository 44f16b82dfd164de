"""The `shoetagger` command."""

from __future__ import annotations

import csv
import json
import logging
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, astuple, dataclass, fields
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer
from tqdm import tqdm

from . import params as parameters
from .errors import ShoetaggerError
from .settings import Settings, without_password

if TYPE_CHECKING:  # each command imports what it needs: `--help` must not wait for torch
    from .decoding import Decoded
    from .engine import Answer, Engine
    from .store import Move, RunRow, Store

app = typer.Typer(
    help="Tag pictures of shoes with many small models, and keep the models in step.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class Format(StrEnum):
    TABLE = "table"
    JSONL = "jsonl"
    CSV = "csv"


class ExportFormat(StrEnum):
    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"


def main() -> None:
    """Run the command; what a user can mend is one line on stderr and exit code 1."""
    # Before torch is imported: its threads should sleep while they wait, not spin.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    for chatty in ("alembic", "mlflow", "httpx", "matplotlib"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        app()
    except BrokenPipeError:  # who reads has seen enough
        sys.stderr.close()
        sys.exit(0)
    except ShoetaggerError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)


# --- tagging ----------------------------------------------------------------------------------


@app.command()
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
) -> None:
    """Tag pictures with the champions, or with the bundles named; nothing is stored."""
    from .engine import Engine
    from .tagging import asked_ahead, batched, decode_pool

    settings = Settings.from_environment()
    options = parameters.load(settings.params_file)
    directories, versions = (bundle, {}) if bundle else _champions(settings, options)
    engine = Engine(directories, settings.device, options.tag.precision)
    groups = [b.group for b in engine.bundles]
    if twice := {group for group in groups if groups.count(group) > 1}:
        raise ShoetaggerError(
            f"two bundles of group {', '.join(sorted(twice))} were named: name one a group"
        )
    numbers = {b.group: versions.get(b.digest, b.digest[:12]) for b in engine.bundles}
    files = list(_files(paths))
    out = _Output(format, sys.stdout, list(numbers))
    # What a person names may be a link, wherever it leads, and is judged as it is now.
    pool = decode_pool(options, engine.transforms, Path("/"), settle_seconds=0.0)
    with pool, _bar(len(files)) as bar:
        # The same file named twice is two lines: results come in the order given.
        names = iter(files)
        batches = batched(pool.run(locator for _, locator in files), options.tag.batch_size)
        for batch, answers in asked_ahead(batches, partial(_answers, engine)):
            for line in _lines(engine, batch, answers, [next(names)[0] for _ in batch], numbers):
                out.write(line)
            bar.update(len(batch))
    out.close()


@app.command()
def night() -> None:
    """Do the nightly job now, without Airflow: tag what is new in the inbox, then publish."""
    from .night import night as run_night

    settings = Settings.from_environment()
    with tqdm(desc="tagging", unit=" pictures", disable=None, dynamic_ncols=True) as bar:

        def progress(pictures: int) -> None:
            bar.update(pictures)

        summary = run_night(settings, "manual", progress)
    typer.echo(str(summary))
    if summary.alarms:
        raise ShoetaggerError(f"published, but look: {'; '.join(summary.alarms)}")


def _champions(settings: Settings, options: parameters.Params) -> tuple[list[Path], dict[str, str]]:
    """Return the folders of the live bundles, and their versions by digest."""
    from . import promotion

    with _store(settings) as store:
        live = store.live()
        digests = [live[group] for group in options.groups if group in live]
        versions = {v.digest: v.version or "?" for v in store.versions()}
    if not digests:
        raise ShoetaggerError(
            "no champion yet: train first (`make demo`, or trigger train_tag_models), or name "
            "bundles that `dvc repro` made: --bundle models/color"
        )
    return [promotion.bundle_directory(settings, digest) for digest in digests], versions


def _files(paths: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """Yield the name to print and the locator of every file named or found in a folder named."""
    from .inbox import locator_of, path_of, scan

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
    """What is said of one file."""

    path: str
    image_id: str | None
    rejected: str | None
    answers: dict[str, Answer]  # by group
    scores: dict[str, float]  # by tag
    versions: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        if self.rejected is not None:
            return {"path": self.path, "rejected": self.rejected}
        return {
            "path": self.path,
            "image_id": self.image_id,
            "tags": {group: list(answer.tags) for group, answer in self.answers.items()},
            "scores": self.scores,
            "versions": self.versions,
        }


def _answers(engine: Engine, batch: list[Decoded]) -> dict[str, list[Answer]]:
    from .tagging import stack_views

    good = [decoded for decoded in batch if decoded.views is not None]
    return engine.answer(stack_views(engine, good)) if good else {}


def _lines(
    engine: Engine,
    batch: list[Decoded],
    answers: dict[str, list[Answer]],
    names: list[str],
    versions: dict[str, str],
) -> Iterator[_Line]:
    place = 0
    for decoded, name in zip(batch, names, strict=True):
        if decoded.views is None:
            yield _Line(name, None, decoded.rejected or decoded.why or "unreadable", {}, {}, {})
            continue
        told = [(bundle, answers[bundle.digest][place]) for bundle in engine.bundles]
        scores = {t: score for b, a in told for t, score in zip(b.tags, a.scores, strict=True)}
        by_group = {bundle.group: answer for bundle, answer in told}
        yield _Line(name, decoded.image_id, None, by_group, scores, versions)
        place += 1


class _Output:
    """Prints lines in one of the formats, as they come."""

    def __init__(self, format: Format, stream: TextIO, groups: list[str]) -> None:
        self._format, self._stream, self._groups = format, stream, groups
        # Names of files may hold bytes that are no text; they are shown escaped, never refused.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
        self._rows = csv.writer(stream, lineterminator="\n")
        if format is Format.CSV:
            self._rows.writerow(["path", "image_id", *groups, "rejected"])

    def write(self, line: _Line) -> None:
        from .tables import defused, printable

        if self._format is Format.JSONL:
            print(json.dumps(line.as_dict()), file=self._stream)
        elif self._format is Format.CSV:
            tags = [" ".join(line.answers[g].tags) if line.answers else "" for g in self._groups]
            self._rows.writerow(
                map(defused, [line.path, line.image_id or "", *tags, line.rejected or ""])
            )
        elif line.rejected is not None:
            print(f"{printable(line.path)}\n    rejected: {line.rejected}", file=self._stream)
        else:
            groups = [f"{g}: {' '.join(a.tags)}" for g, a in line.answers.items()]
            print(f"{printable(line.path)}\n    {' | '.join(groups)}", file=self._stream)

    def close(self) -> None:
        self._stream.flush()


def _bar(total: int) -> tqdm[Any]:
    return tqdm(total=total, desc="tagging", unit=" files", disable=None, dynamic_ncols=True)


# --- looking ----------------------------------------------------------------------------------


@app.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show the live versions, how far tagging is, and the last night."""
    settings = Settings.from_environment()
    groups = list(parameters.load(settings.params_file).groups)
    with _store(settings) as store:
        live, counts = store.live(), store.counts(groups)
        runs = {"last_night": store.last_runs(1, "night"), "last_run": store.last_runs(1)}
        versions = {v.digest: v.version for v in store.versions()}
    document = {
        "groups": {
            group: {
                "version": versions.get(live.get(group, "")),
                "bundle": live.get(group),
                **asdict(counts.groups[group]),
            }
            for group in groups
        },
        "files": {
            "known": counts.files,
            "tagged": counts.tagged,
            "rejected": counts.rejected,
            "waiting": counts.waiting,
            "gone": counts.gone,
        },
        "pictures": counts.images,
        **{name: _run(found[0]) if found else None for name, found in runs.items()},
    }
    if as_json:
        typer.echo(json.dumps(document, indent=1))
    else:
        _print_status(document)


def _run(row: RunRow) -> dict[str, Any]:
    return {
        "kind": row.kind,
        "state": row.state,
        "started_at": row.started_at.isoformat(),
        "ended_at": row.ended_at and row.ended_at.isoformat(),
        "counts": dict(row.counts),
        "alarms": list(row.alarms),
    }


def _print_status(document: dict[str, Any]) -> None:
    for group, told in document["groups"].items():
        version = f"version {told['version']}" if told["bundle"] else "no champion yet"
        pictures = sum(told[state] for state in ("tagged", "stale", "untagged"))
        share = f" ({told['tagged'] / pictures:.0%})" if pictures else ""
        typer.echo(
            f"{group:<12} {version:<16} {told['tagged']} of {pictures} pictures tagged{share}, "
            f"{told['stale']} stale, {told['untagged']} untagged"
        )
    files = ", ".join(f"{number} {name}" for name, number in document["files"].items())
    typer.echo(f"{'files':<12} {files}")
    for name in ("last_night", "last_run"):
        last, words = document[name], name.replace("_", " ")
        if last is None:
            typer.echo(f"{words:<12} none yet")
            continue
        counts = ", ".join(f"{number} {what}" for what, number in last["counts"].items())
        typer.echo(f"{words:<12} {last['kind']} {last['state']}, {last['started_at']}: {counts}")
        for alarm in last["alarms"]:
            typer.echo(f"{'':<12} look: {alarm}")


@app.command()
def history(
    group: Annotated[str | None, typer.Argument(help="Only this group, removed ones too.")] = None,
    picture: Annotated[
        str | None,
        typer.Option(help="Which versions tagged this one: a file of the inbox, or an image id."),
    ] = None,
    on: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="As of the end of this day, in UTC; else now."),
    ] = None,
) -> None:
    """Show every move of a live version: what, when, by whom and why; or who tagged a picture."""
    settings = Settings.from_environment()
    with _store(settings) as store:
        versions = {v.digest: f"version {v.version}" for v in store.versions()}
        moves = store.history(group)
        if group is not None and not moves:
            parameters.load(settings.params_file).group(group)
        if picture is not None:
            _print_tagged(store, _image_id(settings, store, picture), group, on)
            return
    if on is not None:
        raise ShoetaggerError("--on asks about a picture: name one with --picture")
    for move in moves:
        _print_move(move, versions)
    if not moves:
        typer.echo("no version was ever live")


def _print_move(move: Move, versions: Mapping[str, str]) -> None:
    source = versions.get(move.from_digest or "", "none")
    target = versions.get(move.to_digest or "", "none")
    typer.echo(
        f"{move.created_at:%Y-%m-%d %H:%M} UTC  {move.group}: {move.kind} {source} -> {target} "
        f"({move.state}) by {move.by}: {move.why}"
    )
    origin = [("data", move.data_revision), ("MLflow run", move.mlflow_run)]
    if told := ", ".join(f"{what} {value}" for what, value in origin if value):
        typer.echo(f"    {told}")


def _image_id(settings: Settings, store: Store, picture: str) -> str:
    """Return the id of a picture named by the beginning of its id, or by its file."""
    from .inbox import locator_of

    if re.fullmatch(r"[0-9a-f]{8,64}", picture):
        found = store.image_ids(picture, 2)
        if len(found) == 2:
            raise ShoetaggerError(f"more than one picture begins with {picture}: write more of it")
        if found:
            return found[0]
    for path in (settings.inbox / picture, Path(picture)):
        known = store.known(locator_of(path))
        if known is not None and known.image_id is not None:
            return known.image_id
    raise ShoetaggerError(
        f"no picture {picture!r} was tagged: name a file as it lies in {settings.inbox}, or the "
        "first 8 or more characters of an image id"
    )


def _print_tagged(store: Store, image_id: str, group: str | None, on: datetime | None) -> None:
    when = datetime.now(UTC)
    if on is not None:
        when = min(when, on.replace(tzinfo=UTC) + timedelta(days=1))
    typer.echo(f"{image_id} as of {when:%Y-%m-%d %H:%M} UTC")
    found = store.prediction_at(image_id, when)
    for name, told in found.items():
        if group in (None, name):
            version = f"version {told.version}" if told.version else "no version"
            state = "corrected by a person" if told.corrected else "stale" if told.stale else "live"
            typer.echo(f"{name:<12} {version:<16} {state}: {' '.join(told.tags)}")
    if group not in found if group else not found:
        typer.echo("no version had tagged it by then")


@app.command()
def validate(
    data: Annotated[
        Path | None, typer.Argument(help="Folder with images/ and the label sheet.")
    ] = None,
) -> None:
    """Check the label sheet and the pictures it names; all faults in one report."""
    from .images import Limits, unreadable
    from .labels import find_sheet, read_labels

    settings = Settings.from_environment()
    options = parameters.load(settings.params_file)
    folder = data or settings.repo / "data"
    limits = Limits.of(options.images)
    labels = read_labels(
        find_sheet(folder),
        folder / "images",
        options.tags,
        unreadable=lambda path: unreadable(path, limits),
    )
    for warning in labels.warnings:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(f"{len(labels.names)} labelled pictures, {len(labels.tags)} tags: no faults")


@app.command()
def audit(
    out: Annotated[Path, typer.Argument(help="Folder to write to.")] = Path("audit"),
) -> None:
    """List the cells of the label sheet to look at again, as a table and a page of pictures."""
    from . import audit as auditing
    from . import pages
    from .replacing import replacing
    from .tables import csv_line

    settings = Settings.from_environment()
    options, repo = parameters.load(settings.params_file), settings.repo
    images = repo / "data" / "images"
    found = auditing.findings(options, repo / "split", repo / "crossval", images)
    sections = pages.audit_sections(found, options.audit.shown)
    shown = [finding for section in sections for finding in section.findings]
    thumbnails = auditing.thumbnails(shown, images, options)
    columns = [field.name for field in fields(auditing.Finding)]
    lines = [columns, *(["" if v is None else str(v) for v in astuple(f)] for f in found)]
    out.mkdir(parents=True, exist_ok=True)
    for name, content in {
        "audit.csv": b"".join(map(csv_line, lines)),
        "audit.html": pages.audit_page(sections, thumbnails).encode(),
        "style.css": pages.style(options.groups).encode(),
    }.items():
        with replacing(out / name) as file:
            file.write(content)
    kinds = Counter(finding.kind for finding in found)
    typer.echo(", ".join(f"{kind} {count}" for kind, count in kinds.items()) or "no findings")
    typer.echo(f"written to {out / 'audit.html'} and audit.csv beside it")


@app.command()
def export(
    out: Annotated[Path, typer.Argument(help="File to write.")],
    format: Annotated[ExportFormat, typer.Option(help="What to write.")] = ExportFormat.CSV,
) -> None:
    """Write the current tags of all pictures to one file."""
    from .publish import export as write

    settings = Settings.from_environment()
    groups = parameters.load(settings.params_file).groups
    with _store(settings) as store:
        rows = write(store, groups, format.value, out, inbox=settings.inbox)
    typer.echo(f"{rows} pictures written to {out}")


# --- upkeep -----------------------------------------------------------------------------------


@app.command()
def rollback(
    group: Annotated[str, typer.Argument(help="The group to move back.")],
    why: Annotated[str, typer.Option(help="The reason, for the ledger.")],
    to: Annotated[
        str | None, typer.Option(help="The version to go back to; else the one before.")
    ] = None,
) -> None:
    """Make an earlier version live again: its predictions count at once, no model runs."""
    from . import promotion, publish
    from .tracking import user

    settings = Settings.from_environment()
    parameters.load(settings.params_file).group(group)
    version = promotion.rollback(settings, group, to=to, by=user(), why=why)
    typer.echo(f"{group}: version {version} is live")
    counts = publish.publish_changes(settings)
    typer.echo(f"{counts['days']} days published again")


@app.command()
def retry(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Rejected files of the inbox; else all of them.")
    ] = None,
) -> None:
    """Let the next night look again at rejected files, changed or not."""
    from .inbox import locator_of

    with _store(Settings.from_environment()) as store:
        waiting = store.retry_rejected([locator_of(file) for file in files] if files else None)
    typer.echo(f"{waiting} files wait for the next night")


@app.command()
def forget(
    image_id: Annotated[str, typer.Argument(help="The picture's id, as `export` tells it.")],
) -> None:
    """Erase what was derived from a picture: tags, corrections, thumbnail, rows of tables.

    Its bytes are not tagged again, whatever the name, until `retry` names a file that holds them.
    The file in the inbox, exports made by hand and backups are yours to remove.
    """
    from .publish import forget as erase

    counts = erase(Settings.from_environment(), image_id)
    typer.echo(f"{image_id} is forgotten; {counts['days']} days published again")


@app.command()
def backup(out: Annotated[Path, typer.Argument(help="File to write.")]) -> None:
    """Write the store and MLflow's runs, versions and models to one file, while they are in use."""
    from .backup import backup as write

    settings = Settings.from_environment()
    manifest = write(settings, out)
    if manifest["artifacts"] is None:
        typer.echo(
            f"MLflow at {without_password(settings.tracking_uri)} is left out: back it up there",
            err=True,
        )
    typer.echo(f"{len(manifest['sha256'])} files, {out.stat().st_size:,} bytes written to {out}")


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="What backup wrote.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Put it in the place of what is there.")
    ] = False,
) -> None:
    """Put a backup's store and registry in place, and publish all days anew; servers are down."""
    from . import publish
    from .backup import restore as put_back
    from .servers import marked_processes

    settings = Settings.from_environment()
    if marked_processes(settings):
        raise ShoetaggerError("the servers are running: `make down`, then restore")
    manifest = put_back(settings, file, replace=replace)
    counts = publish.publish_changes(settings, every_day=True)
    typer.echo(f"restored as of {manifest['made_at']}; {counts['days']} days published again")


@app.command()
def sync() -> None:
    """Send MLflow what waits in the outbox."""
    from .tracking import sync as send
    from .tracking import trim

    settings = Settings.from_environment()
    report = send(settings.tracking_uri, settings.outbox, settings.artifacts)
    given_up = trim(settings.outbox, parameters.load(settings.params_file).keep.outbox_mb)
    waiting = report.waiting - len(given_up)
    typer.echo(f"{report.sent} runs sent, {waiting} waiting in {settings.outbox}")


@app.command()
def migrate() -> None:
    """Make the store's tables and MLflow's, or bring older ones up to date."""
    from .tracking import prepare

    settings = Settings.from_environment()
    settings.home.mkdir(parents=True, exist_ok=True)
    with _store(settings) as store:
        store.migrate()
    prepare(settings.tracking_uri)
    typer.echo("store and MLflow are up to date")


def _store(settings: Settings) -> Store:
    from .store import Store

    return Store(settings.store_url)


if __name__ == "__main__":
    main()
