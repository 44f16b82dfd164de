"""The gallery, and the page of one picture."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request
from fastapi import Path as InPath
from fastapi.responses import HTMLResponse

from .. import pages
from ..dependencies import Here, Reader
from ..selection import Selection

router = APIRouter()

ImageId = Annotated[str, InPath(pattern=r"^[0-9a-f]{64}$")]


@router.get("/")
def show_gallery(request: Request, person: Reader, gallery: Here) -> HTMLResponse:
    selection = Selection.from_query(request.query_params.multi_items(), gallery.groups)
    page, notice = gallery.page(selection), gallery.params_fault
    return HTMLResponse(pages.gallery(page, gallery.params, person.may_write, notice))


@router.get("/picture/{image_id}")
def show_picture(image_id: ImageId, person: Reader, gallery: Here) -> HTMLResponse:
    card, history = gallery.card(image_id), gallery.history(image_id)
    similar, article = gallery.similar(image_id), gallery.article(card)
    may_write, notice = person.may_write, gallery.params_fault
    page = pages.picture(card, history, similar, article, gallery.params, may_write, notice)
    return HTMLResponse(page)
