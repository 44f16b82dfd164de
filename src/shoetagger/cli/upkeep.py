"""Commands that change state: nights, moves, pictures, backups, upkeep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from ..config import params as parameters
from ..config.settings import Settings, redacted
from ..errors import ShoetaggerError
from ..ops.installation import opened
from ..ops.restore import settle
from ..store.store import Store


def night() -> None:
    """Do the nightly job now, without Airflow: tag what is new in the inbox, then publish."""
    from ..orchestration.nightly import night as run_night

    settings = Settings.from_environment()
    with tqdm(desc="tagging", unit=" pictures", disable=None, dynamic_ncols=True) as bar:

        def progress(pictures: int) -> None:
            bar.update(pictures)

        summary = run_night(settings, "manual", progress)
    typer.echo(str(summary))
    if summary.alerts:
        raise ShoetaggerError(f"published, but look: {'; '.join(summary.alerts)}")


def rollback(
    group: Annotated[str, typer.Argument(help="The group to move back.")],
    why: Annotated[str, typer.Option(help="The reason, for the ledger.")],
    to: Annotated[
        str | None, typer.Option(help="The version to go back to; else the one before.")
    ] = None,
) -> None:
    """Make an earlier version live again: its predictions count at once, no model runs."""
    from ..config.settings import user
    from ..orchestration import nightly
    from ..orchestration.rollback import roll_back
    from ..rendering import count

    with opened(Settings.from_environment()) as here:
        version = roll_back(here, group, to=to, by=user(), why=why)
        typer.echo(f"{group}: version {version} is live")
        work = here.store.predictions.count_work({group: here.store.ledger.live()[group]})
        if again := work.backlog[group]:
            typer.echo(f"{again} pictures that it has not tagged wait for the next night")
        counts = nightly.publish(here)
    typer.echo(f"{count(counts['days'], 'day')} published again")


def retry(
    files: Annotated[
        list[str] | None,
        typer.Argument(help="Rejected files, as the pages name them or by path; else all of them."),
    ] = None,
) -> None:
    """Let the next night look again at rejected files, changed or not."""
    from .names import rejected_locators

    with opened(Settings.from_environment()) as here:
        inbox, store = here.settings.inbox, here.store
        waiting = store.files.retry(rejected_locators(store, inbox, files) if files else None)
    typer.echo(f"{waiting} files wait for the next night")


def forget(
    image_id: Annotated[str, typer.Argument(help="The picture's id, as `export` shows it.")],
) -> None:
    """Erase what was derived from a picture: tags, corrections, thumbnail, preview, rows.

    Comparisons that showed it lose their pictures.

    Its bytes are not tagged again, whatever the name, until `retry` names a file that holds them.
    The file in the inbox, exports made by hand, backups and logs are yours to remove.
    """
    from ..promotion.erasure import erase_from_comparisons
    from ..publishing.publication import forget as erase
    from ..rendering import count
    from ..tracking.connection import MLflowUnavailable

    with opened(Settings.from_environment()) as here:
        settings = here.settings
        counts = erase(
            here.store,
            here.params,
            image_id,
            published=settings.published,
            inbox=settings.inbox,
        )
    typer.echo(f"{image_id} is forgotten; {count(counts['days'], 'day')} published again")
    try:
        erased = erase_from_comparisons(settings.tracking_uri, settings.artifacts, image_id)
    except MLflowUnavailable as error:
        raise ShoetaggerError(
            f"{error}: comparisons there may still show the picture; run this again when it answers"
        ) from error
    typer.echo(f"the pictures of {erased} comparisons in MLflow were removed")


def backup(out: Annotated[Path, typer.Argument(help="File to write.")]) -> None:
    """Write the store and MLflow's runs, versions and models to one file, while they are in use."""
    from ..ops.backup import backup as write

    settings = Settings.from_environment()
    manifest = write(settings, out)
    if manifest.artifacts is None:
        typer.echo(
            f"MLflow at {redacted(settings.tracking_uri)} is left out: back it up there",
            err=True,
        )
    typer.echo(f"{len(manifest.sha256)} files, {out.stat().st_size:,} bytes written to {out}")


def restore(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="What backup wrote.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Put it in the place of what is there.")
    ] = False,
) -> None:
    """Put a backup's store and registry in place and publish all days again; servers are down."""
    from ..ops.processes import marked_processes
    from ..ops.restore import restore as put_back
    from ..orchestration import nightly
    from ..rendering import count

    settings = Settings.from_environment()
    if marked_processes(settings):
        raise ShoetaggerError("the servers are running: `make down`, then restore")
    manifest = put_back(settings, file, replace=replace)
    with opened(settings) as here:
        counts = nightly.publish(here, every_day=True)
    typer.echo(f"restored as of {manifest.made_at}; {count(counts['days'], 'day')} published again")


def sync() -> None:
    """Send MLflow what waits in the outbox."""
    from ..tracking.outbox import Outbox, trim

    settings = Settings.from_environment()
    report = Outbox(settings.tracking_uri, settings.outbox, settings.artifacts).sync()
    given_up = trim(settings.outbox, parameters.load(settings.params_file).keep.outbox_mb)
    waiting = report.waiting - len(given_up)
    typer.echo(f"{report.sent} runs sent, {waiting} waiting in {settings.outbox}")


def migrate() -> None:
    """Make the store's tables and MLflow's, or bring older ones up to date."""
    from ..tracking.connection import prepare

    settings = Settings.from_environment()
    settings.home.mkdir(parents=True, exist_ok=True)
    settle(settings)
    with Store(settings.store_url) as store:
        store.migrate()
    prepare(settings.tracking_uri)
    typer.echo("store and MLflow are up to date")


def clean(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be deleted, and delete nothing.")
    ] = False,
) -> None:
    """Delete old predictions, runs, caches and logs that `keep.*` of params.yaml does not keep."""
    from ..ops import cleaning

    with opened(Settings.from_environment()) as here:
        for cleaned in cleaning.clean(here, dry_run=dry_run):
            typer.echo(str(cleaned))
