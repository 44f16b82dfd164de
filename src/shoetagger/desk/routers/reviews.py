"""What to check next, what was checked, and how right the tags are by the random ones of those."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from ...review.quality import quality
from .. import pages
from ..dependencies import Here, Reader, Writer

router = APIRouter()

ImageId = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class WantedSkip(BaseModel):
    """Pictures of the queue that a person passes on; `back` lets them be asked of them again."""

    model_config = ConfigDict(extra="forbid")

    image_ids: list[ImageId] = Field(min_length=1, max_length=2000)
    back: bool = False


@router.get("/queue")
def show_queue(person: Reader, gallery: Here) -> HTMLResponse:
    params = gallery.params
    choice = gallery.next_to_label(person.name)
    cards = gallery.cards([picture.image_id for picture in choice.pictures])
    notice = gallery.params_fault
    return HTMLResponse(pages.queue(choice, cards, params, person.may_write, notice))


@router.post("/queue/skip")
def skip(wanted: WantedSkip, person: Writer, gallery: Here) -> JSONResponse:
    if wanted.back:
        gallery.store.skips.take_back(wanted.image_ids, by=person.name)
    else:
        gallery.store.skips.add(wanted.image_ids, by=person.name, now=datetime.now(UTC))
    return JSONResponse({})


@router.get("/collection")
def show_collection(person: Reader, gallery: Here) -> HTMLResponse:
    pictures, total = gallery.to_collect()
    params, notice = gallery.params, gallery.params_fault
    return HTMLResponse(pages.collection(pictures, total, params, person.may_write, notice))


@router.get("/quality")
def show_quality(request: Request, _: Reader, gallery: Here) -> HTMLResponse:
    found = quality(gallery.store, gallery.groups)
    wanted = request.query_params.getlist("version")
    return HTMLResponse(pages.quality(found, wanted, gallery.params, gallery.params_fault))
