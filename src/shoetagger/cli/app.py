"""The `shoetagger` command."""

from __future__ import annotations

import logging
import os
import sys

import typer

from ..errors import ShoetaggerError
from . import backfill, correct, exchange, init, inspect, labels, notify, review, tag, upkeep

app = typer.Typer(
    help="Tag pictures of shoes with many small models, and keep the models in step.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command; what a user can mend is one line on stderr and exit code 1."""
    # Before torch is imported: its threads should sleep while they wait, not spin.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    for chatty in ("alembic", "mlflow", "httpx", "matplotlib"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        app()
    except BrokenPipeError:  # the reader has closed the pipe, as `head` does
        sys.stderr.close()
        sys.exit(0)
    except ShoetaggerError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)


for command in (
    init.init,
    tag.tag,
    upkeep.night,
    backfill.backfill,
    inspect.status,
    inspect.history,
    labels.validate,
    labels.audit,
    labels.collect,
    inspect.export,
    notify.notify,
    correct.correct,
    correct.verdict,
    review.queue,
    review.quality,
    upkeep.rollback,
    upkeep.retry,
    upkeep.forget,
    upkeep.backup,
    upkeep.restore,
    upkeep.sync,
    upkeep.migrate,
    upkeep.clean,
):
    app.command()(command)
app.add_typer(exchange.app, name="labels")


if __name__ == "__main__":
    main()
