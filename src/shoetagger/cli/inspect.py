"""Commands that show the state: status, history, export."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..config.places import Place
from ..config.settings import Settings
from ..errors import ShoetaggerError
from ..notification.addresses import fault_of
from ..ops.installation import opened
from ..store.overdue import overdue
from ..store.rows import NOT_A_SHOE
from .file_format import format_for

if TYPE_CHECKING:
    from ..store.rows import Move, TaggingRun
    from ..store.store import Store


class ExportFormat(StrEnum):
    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"


def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show the live versions, how far tagging is, and the last night."""
    with opened(Settings.from_environment()) as here:
        groups, store = list(here.params.groups), here.store
        live, counts = store.ledger.live(), store.current.counts(groups)
        runs = {"last_night": store.runs.latest(1, "night"), "last_run": store.runs.latest(1)}
        versions = {v.digest: v.version for v in store.ledger.versions()}
        late = overdue(store, here.params.tag.max_hours_without_night, datetime.now(UTC))
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
        **{name: _run(rows[0]) if rows else None for name, rows in runs.items()},
        "overdue": late,
    }
    if as_json:
        typer.echo(json.dumps(document, indent=1))
    else:
        _print_status(document)
    if fault := fault_of(here.settings.notify_url):
        typer.echo(f"{fault}: until then nobody is notified", err=True)


def _run(row: TaggingRun) -> dict[str, Any]:
    return {
        "kind": row.kind,
        "state": row.state,
        "started_at": row.started_at.isoformat(),
        "ended_at": row.ended_at and row.ended_at.isoformat(),
        "counts": dict(row.counts),
        "alerts": list(row.alerts),
    }


def _print_status(document: dict[str, Any]) -> None:
    for group, row in document["groups"].items():
        version = f"version {row['version']}" if row["bundle"] else "no champion yet"
        pictures = sum(row[state] for state in ("tagged", "stale", "untagged"))
        share = f" ({row['tagged'] / pictures:.0%})" if pictures else ""
        typer.echo(
            f"{group:<12} {version:<16} {row['tagged']} of {pictures} pictures tagged{share}, "
            f"{row['stale']} stale, {row['untagged']} untagged"
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
        for alert in last["alerts"]:
            typer.echo(f"{'':<12} look: {alert}")
    if document["overdue"]:
        typer.echo(f"look: {document['overdue']}")


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
    with opened(Settings.from_environment()) as here:
        store = here.store
        versions = {v.digest: f"version {v.version}" for v in store.ledger.versions()}
        moves = store.ledger.history(group)
        if group is not None and not moves:
            here.params.group(group)
        if picture is not None:
            image_id = image_id_of(store, here.settings.inbox, picture)
            _print_tagged(store, image_id, group, on)
            return
    if on is not None:
        raise ShoetaggerError("--on is about one picture: name it with --picture")
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
    if origins := ", ".join(f"{what} {value}" for what, value in origin if value):
        typer.echo(f"    {origins}")


def image_id_of(store: Store, inbox: Place, picture: str) -> str:
    """Return the id of a picture named by the beginning of its id, or by its file."""
    from ..ingest.places import locators_named

    if re.fullmatch(r"[0-9a-f]{8,64}", picture):
        ids = store.current.image_ids_starting_with(picture, 2)
        if len(ids) == 2:
            raise ShoetaggerError(f"more than one picture begins with {picture}: write more of it")
        if ids:
            return ids[0]
    for locator in locators_named(inbox, picture):
        known = store.files.find(locator)
        if known is not None and known.image_id is not None:
            return known.image_id
    raise ShoetaggerError(
        f"no picture {picture!r} was tagged: name a file by its path in {inbox}, or the "
        "first 8 or more characters of an image id"
    )


def _print_tagged(store: Store, image_id: str, group: str | None, on: datetime | None) -> None:
    when = datetime.now(UTC)
    if on is not None:
        when = min(when, on.replace(tzinfo=UTC) + timedelta(days=1))
    typer.echo(f"{image_id} as of {when:%Y-%m-%d %H:%M} UTC")
    if (verdict := store.corrections.verdict_at(image_id, when)) is not None:
        typer.echo(f"judged as {NOT_A_SHOE} by {verdict.by}")
    tags = store.current.tags_at(image_id, when)
    for name, row in tags.items():
        if group in (None, name):
            version = f"version {row.version}" if row.version else "no version"
            state = "corrected by a person" if row.corrected else "stale" if row.stale else "live"
            typer.echo(f"{name:<12} {version:<16} {state}: {' '.join(row.tags)}")
    if group not in tags if group else not tags:
        typer.echo("no version had tagged it by then")


def export(
    out: Annotated[Path, typer.Argument(help="File to write.")],
    format: Annotated[
        ExportFormat | None, typer.Option(help="What to write; by default what OUT's suffix says.")
    ] = None,
    scores: Annotated[
        bool, typer.Option("--scores", help="A column per tag in the CSV; the others have them.")
    ] = False,
    articles: Annotated[
        bool, typer.Option("--articles", help="A row per article instead (articles.pattern).")
    ] = False,
) -> None:
    """Write the current tags of all pictures to one file."""
    from ..publishing.export import export as write

    fmt = format_for(out, format, {member: f".{member.value}" for member in ExportFormat})
    with opened(Settings.from_environment()) as here:
        if articles and here.params.articles.pattern is None:
            raise ShoetaggerError(
                "articles.pattern in params.yaml is not set: it says how a file's name tells which "
                "article it shows"
            )
        if articles and scores:
            raise ShoetaggerError("articles have no scores of their own: leave --scores out")
        rows = write(
            here.store,
            here.params.groups,
            fmt.value,
            out,
            inbox=here.settings.inbox,
            scores=scores,
            articles=here.params.articles,
            per_article=articles,
        )
    typer.echo(f"{rows} {'articles' if articles else 'pictures'} written to {out}")
