"""Files that the pages show: pictures in small, style and script."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse, Response

from ..dependencies import Here
from .pictures import ImageId

router = APIRouter()

STATIC = Path(__file__).parents[1] / "static"
_STATIC_FILES = {"desk.css": "text/css", "desk.js": "text/javascript"}


@router.get("/thumbs/{image_id}.jpg")
def thumbnail(image_id: ImageId, gallery: Here) -> Response:
    return _picture(gallery.thumbnail(image_id), "this picture has no thumbnail")


@router.get("/previews/{image_id}.jpg")
def preview(image_id: ImageId, gallery: Here) -> Response:
    return _picture(gallery.preview(image_id), "this picture has neither preview nor thumbnail")


@router.get("/static/{name}")
def static(name: str) -> Response:
    if name not in _STATIC_FILES:
        raise HTTPException(404, f"there is no {name}")
    return FileResponse(STATIC / name, media_type=_STATIC_FILES[name], headers=_cached(60))


def _picture(jpeg: bytes | None, missing: str) -> Response:
    if jpeg is None:
        raise HTTPException(404, missing)
    return Response(jpeg, media_type="image/jpeg", headers=_cached(300))


def _cached(seconds: int) -> dict[str, str]:
    return {"Cache-Control": f"private, max-age={seconds}"}
