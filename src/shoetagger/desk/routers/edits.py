"""What people write of pictures' tags, and what they take back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from ...review.choosing import origin_of
from ...store.rows import CorrectionConflict, Edit
from .. import pages
from ..dependencies import Here, Writer
from ..gallery import Gallery

router = APIRouter()


class WantedEdit(BaseModel):
    """One group of one picture, as a browser sends it; `tags` null leaves it to the models.

    A verdict on the whole picture has the group "", and null takes it back.
    """

    model_config = ConfigDict(extra="forbid")

    image_id: str = Field(pattern=r"^[0-9a-f]{64}$")
    group: str
    tags: list[str] | None
    seen: int | None
    digest: str | None = None
    kind: Literal["correct", "confirm", "verdict"] = "correct"


class WantedEdits(BaseModel):
    """What a person did in one go: all of it is written, or none. `origin` is where they did it."""

    model_config = ConfigDict(extra="forbid")

    edits: list[WantedEdit] = Field(min_length=1, max_length=2000)
    origin: Literal["browse", "queue"] = "browse"


class WantedUndo(BaseModel):
    """The ids of edits to take back, as `POST edits` returned them."""

    model_config = ConfigDict(extra="forbid")

    ids: list[int] = Field(min_length=1, max_length=2000)


@router.post("/edits")
def edit(wanted: WantedEdits, person: Writer, gallery: Here) -> JSONResponse:
    random = gallery.params.labels.queue.random
    edits = [
        Edit(
            edit.image_id,
            edit.group,
            None if edit.tags is None else tuple(edit.tags),
            seen=edit.seen,
            seen_digest=edit.digest,
            kind=edit.kind,
            origin=origin_of(edit.image_id, random) if wanted.origin == "queue" else None,
        )
        for edit in wanted.edits
    ]
    image_ids = list(dict.fromkeys(edit.image_id for edit in edits))
    try:
        ids = gallery.edit(edits, person.name)
    except CorrectionConflict as conflict:
        return _conflict(conflict, gallery, image_ids)
    return JSONResponse({"ids": ids, "cards": _cards(gallery, image_ids)})


@router.post("/undo")
def undo(wanted: WantedUndo, person: Writer, gallery: Here) -> JSONResponse:
    try:
        image_ids = gallery.undo(wanted.ids, person.name)
    except CorrectionConflict as conflict:
        return _conflict(conflict, gallery, [conflict.correction.image_id])
    return JSONResponse({"cards": _cards(gallery, image_ids)})


def _cards(gallery: Gallery, image_ids: Sequence[str]) -> dict[str, str]:
    """Return the present cards of pictures as HTML, by image id."""
    return {card.image_id: pages.card(card, gallery.params) for card in gallery.cards(image_ids)}


def _conflict(
    conflict: CorrectionConflict, gallery: Gallery, image_ids: Sequence[str]
) -> JSONResponse:
    content = {"detail": str(conflict), "cards": _cards(gallery, image_ids)}
    return JSONResponse(content, status_code=409)
