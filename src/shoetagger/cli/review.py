"""Commands about what people should check next, and how right the tags are by what they said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..config.settings import Settings
from ..ops.installation import opened

if TYPE_CHECKING:
    from ..review.quality import Score, Share


def queue(
    size: Annotated[int | None, typer.Option(min=1, help="How many; labels.queue.size.")] = None,
) -> None:
    """List the pictures that people should check next, each with the reason."""
    from ..publishing.rows import shown_name
    from ..review.label_queue import LabelQueue, sized

    with opened(Settings.from_environment()) as here:
        settings, groups = here.settings, here.params.groups
        waiting = LabelQueue(here.store, settings.published, settings.bundles)
        exclusive = here.params.audit.exclusive
        options = sized(here.params.labels.queue, size)
        choice = waiting.choose(groups, options, exclusive=exclusive)
        ids = [picture.image_id for picture in choice.pictures]
        rows = here.store.current.rows([], image_ids=ids)
        files = {
            row.image_id: shown_name(row.locators[0], settings.inbox)
            for row in rows
            if row.locators
        }
    for picture in choice.pictures:
        typer.echo(f"{picture.image_id[:12]}  {files.get(picture.image_id, '-')}  {picture.reason}")
    for note in choice.notes:
        typer.echo(note, err=True)
    if not choice.pictures:
        typer.echo("nothing to check: no published picture lacks a person's word on its tags")


def quality() -> None:
    """Say how right the tags are, by the pictures of the queue that were drawn at random."""
    from ..rendering import count
    from ..review.quality import quality as measured

    with opened(Settings.from_environment()) as here:
        found = measured(here.store, here.params.groups)
    if not found.pictures:
        typer.echo(
            "no random reviews yet: check pictures of the queue (`shoetagger queue`, or the desk); "
            "those that it draws at random count here"
        )
        return
    typer.echo(f"by {count(found.pictures, 'picture')} drawn at random; 95 % intervals (Wilson)")
    for name, group in found.groups.items():
        for version in group.versions:
            _print(f"{name} version {version.version}{' (live)' * version.live}", version.total)
            for tag, score in version.tags.items():
                _print(f"  {tag}", score)


def _print(words: str, score: Score) -> None:
    typer.echo(f"{words:<28} precision {_shown(score.precision):<28} recall {_shown(score.recall)}")


def _shown(share: Share) -> str:
    if share.value is None or share.interval is None:
        return "-"
    low, high = share.interval
    return f"{share.value:.2f} [{low:.2f}, {high:.2f}] of {share.of}"
