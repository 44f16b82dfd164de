"""The commands by which people correct and judge pictures; in the browser, the desk does it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from ..config.settings import Settings, user
from ..errors import ShoetaggerError
from ..ops.installation import opened
from ..store.rows import NOT_A_SHOE
from .inspect import image_id_of


def correct(
    picture: Annotated[str, typer.Argument(help="A file of the inbox, or an image id.")],
    group: Annotated[str, typer.Argument(help="The group whose tags are wrong.")],
    tags: Annotated[list[str] | None, typer.Argument(help="The right tags.")] = None,
    none: Annotated[bool, typer.Option("--none", help="No tag of the group is right.")] = False,
    withdraw: Annotated[
        bool, typer.Option("--withdraw", help="Leave the group to the models again.")
    ] = False,
    why: Annotated[str, typer.Option(help="The reason, for the history.")] = "",
) -> None:
    """Say which tags of a group are right for a picture; this outranks every model."""
    if bool(tags) + none + withdraw != 1:
        raise ShoetaggerError(
            "name the right tags, or use --none where none is right, or --withdraw to leave the "
            "group to the models again: exactly one of these"
        )
    with opened(Settings.from_environment()) as here:
        known = here.params.group(group).tags
        unknown = [tag for tag in tags or () if tag not in known]
        if unknown:
            raise ShoetaggerError(
                f"{group} has no tag {', '.join(unknown)}: its tags are {', '.join(known)}"
            )
        image_id = image_id_of(here.store, here.settings.inbox, picture)
        right = None if withdraw else [tag for tag in known if tag in (tags or ())]
        here.store.corrections.correct(
            image_id, group, right, by=user(), why=why, now=datetime.now(UTC)
        )
        cell = next(here.store.current.rows([group], image_ids=[image_id])).groups.get(group)
    now = " ".join(cell.tags) or "no tag" if cell else "not tagged yet"
    typer.echo(f"{picture}: {group} is now {now}")


def verdict(
    picture: Annotated[str, typer.Argument(help="A file of the inbox, or an image id.")],
    withdraw: Annotated[
        bool, typer.Option("--withdraw", help="It is a shoe: take the verdict back.")
    ] = False,
    why: Annotated[str, typer.Option(help="The reason, for the history.")] = "",
) -> None:
    """Say that a picture is not a shoe: it then has no tags, until the verdict is taken back."""
    with opened(Settings.from_environment()) as here:
        image_id = image_id_of(here.store, here.settings.inbox, picture)
        here.store.corrections.judge(
            image_id, is_shoe=withdraw, by=user(), why=why, now=datetime.now(UTC)
        )
    typer.echo(f"{picture}: {'a shoe, with tags again' if withdraw else NOT_A_SHOE}")
