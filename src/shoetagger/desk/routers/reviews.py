"""The queue of pictures to check next, and how right the tags are by the random ones of them."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from ...review.quality import quality
from .. import pages
from ..dependencies import Here, Reader

router = APIRouter()


@router.get("/queue")
def show_queue(person: Reader, gallery: Here) -> HTMLResponse:
    params = gallery.params
    choice = gallery.label_queue.choose(params.groups, params.labels.queue, params.title)
    cards = gallery.cards([picture.image_id for picture in choice.pictures])
    notice = gallery.params_fault
    return HTMLResponse(pages.queue(choice, cards, params, person.may_write, notice))


@router.get("/quality")
def show_quality(request: Request, _: Reader, gallery: Here) -> HTMLResponse:
    found = quality(gallery.store, gallery.groups)
    wanted = request.query_params.getlist("version")
    return HTMLResponse(pages.quality(found, wanted, gallery.params, gallery.params_fault))
