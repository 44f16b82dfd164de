"""Files that could not be tagged, and another try for them."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from .. import pages
from ..dependencies import Here, Reader, Writer

router = APIRouter()


class WantedRetry(BaseModel):
    """The locators of rejected files to try again."""

    model_config = ConfigDict(extra="forbid")

    locators: list[str] = Field(min_length=1, max_length=2000)


@router.get("/rejected")
def show_rejected(person: Reader, gallery: Here) -> HTMLResponse:
    notice = gallery.params_fault
    return HTMLResponse(pages.rejected(gallery.rejected(), person.may_write, notice))


@router.post("/rejected/retry")
def retry(wanted: WantedRetry, _: Writer, gallery: Here) -> JSONResponse:
    return JSONResponse({"retried": gallery.retry(wanted.locators)})
