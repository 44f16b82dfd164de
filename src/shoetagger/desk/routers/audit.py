"""The findings of the label audit."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, HTTPException
from fastapi import Path as InPath
from fastapi.responses import FileResponse, HTMLResponse, Response

from .. import pages
from ..audit import picture_of, read_audit
from ..dependencies import Here, Reader

router = APIRouter()


@router.get("/audit")
def show_audit(person: Reader, gallery: Here) -> HTMLResponse:
    found = read_audit(gallery.settings.audit, gallery.params.audit.shown)
    known = gallery.known([f.image_id for s in found.sections for f in s.findings] if found else ())
    return HTMLResponse(pages.audit(found, known, person.may_write, gallery.params_fault))


@router.get("/audit/pictures/{name}")
def audit_picture(
    name: Annotated[str, InPath(pattern=r"^[0-9a-f]{32}\.jpg$")], gallery: Here
) -> Response:
    path = picture_of(gallery.settings.audit, name)
    if path is None:
        raise HTTPException(404, "the audit shows no such picture")
    return FileResponse(path, media_type="image/jpeg")
