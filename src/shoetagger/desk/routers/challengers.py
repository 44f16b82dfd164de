"""What challengers would change."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException
from fastapi.responses import HTMLResponse

from .. import pages
from ..challengers import challenger, challengers
from ..dependencies import Here, Reader

router = APIRouter()


@router.get("/challengers")
def show_challengers(person: Reader, gallery: Here) -> HTMLResponse:
    found = challengers(gallery.store)
    return HTMLResponse(pages.challengers(found, person.may_write, gallery.params_fault))


@router.get("/challengers/{group}/{version}")
def show_challenger(group: str, version: str, person: Reader, gallery: Here) -> HTMLResponse:
    found = challenger(gallery.store, group, version)
    if found is None:
        raise HTTPException(
            404, f"no comparison of {group} version {version} is kept: MLflow has it, in its run"
        )
    # Pictures that went since are no longer shown.
    cards = gallery.cards([change.image_id for change in found.changes])
    notice = gallery.params_fault
    return HTMLResponse(pages.challenger(found, cards, gallery.params, person.may_write, notice))
