"""Heat maps of why a picture has its scores."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import HTMLResponse, Response

from .. import pages
from ..dependencies import Here, Reader, refuse_other_sites
from .pictures import ImageId

router = APIRouter()


@router.get("/picture/{image_id}/why")
def show_why(
    request: Request,
    image_id: ImageId,
    person: Reader,
    gallery: Here,
    group: str | None = None,
    tag: str | None = None,
) -> HTMLResponse:
    refuse_other_sites(request)  # it starts a process
    card = gallery.card(image_id)
    maps = gallery.why(card)
    notice = gallery.params_fault
    page = pages.why(card, maps, group, tag, gallery.params, person.may_write, notice)
    return HTMLResponse(page)


@router.get("/picture/{image_id}/why.jpg")
def view(request: Request, image_id: ImageId, group: str, gallery: Here) -> Response:
    refuse_other_sites(request)
    maps = gallery.why(gallery.card(image_id)).get(group)
    if maps is None or maps.view is None:
        raise HTTPException(404, f"the models of {group} see the whole picture")
    return Response(maps.view, media_type="image/jpeg")


@router.get("/picture/{image_id}/why.png")
def heatmap(request: Request, image_id: ImageId, group: str, tag: str, gallery: Here) -> Response:
    refuse_other_sites(request)
    maps = gallery.why(gallery.card(image_id)).get(group)
    found = maps.tags.get(tag) if maps else None
    if found is None:
        raise HTTPException(404, f"there is no heat map for {tag} of {group}")
    return Response(found.png, media_type="image/png")
