"""The desk's pages and writes as a FastAPI application; whoever mounts it says who may do what."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi import Path as InPath
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from ..errors import ShoetaggerError, TransientError
from ..store.rows import CorrectionConflict, Edit, StoreError
from . import pages
from .gallery import Gallery, UnknownPictureError
from .selection import Selection, SelectionError

STATIC = Path(__file__).parent / "static"
_STATIC_FILES = {"desk.css": "text/css", "desk.js": "text/javascript"}

# No script but our own file, no form that leaves, no page of another origin around this one.
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}

# The first that fits counts.
_STATUS: dict[type[Exception], int] = {
    SelectionError: 400,
    UnknownPictureError: 404,
    TransientError: 503,
    StoreError: 422,
}

ImageId = Annotated[str, InPath(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class Person:
    """Whoever asks, as the surrounding server knows them."""

    name: str
    may_write: bool


class WantedEdit(BaseModel):
    """One group of one picture, as a browser sends it; `tags` null leaves it to the models."""

    model_config = ConfigDict(extra="forbid")

    image_id: str = Field(pattern=r"^[0-9a-f]{64}$")
    group: str
    tags: list[str] | None
    seen: int | None
    digest: str | None = None
    kind: Literal["correct", "confirm"] = "correct"


class WantedEdits(BaseModel):
    """What a person did in one go: all of it is written, or none."""

    model_config = ConfigDict(extra="forbid")

    edits: list[WantedEdit] = Field(min_length=1, max_length=2000)


class WantedUndo(BaseModel):
    """The ids of edits to take back, as `POST edits` returned them."""

    model_config = ConfigDict(extra="forbid")

    ids: list[int] = Field(min_length=1, max_length=2000)


class WantedRetry(BaseModel):
    """The locators of rejected files to try again."""

    model_config = ConfigDict(extra="forbid")

    locators: list[str] = Field(min_length=1, max_length=2000)


def create(gallery: Callable[[], Gallery], access: Callable[..., Person]) -> FastAPI:
    """Return the application.

    `access` is a dependency that returns who asks, and refuses those who may not look (401, 403).
    `gallery` opens the installation when the application starts; it is closed at the end.
    """
    opened: list[Gallery] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        opened.append(gallery())
        yield
        opened.pop().close()

    def here() -> Gallery:
        return opened[-1]

    def writer(request: Request, person: Annotated[Person, Depends(access)]) -> Person:
        _refuse_other_origins(request)
        if not person.may_write:
            raise HTTPException(403, f"{person.name} may look but not write: ask for the role user")
        return person

    app = FastAPI(
        lifespan=lifespan,
        dependencies=[Depends(access)],
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    app.middleware("http")(_with_headers)
    app.exception_handler(ShoetaggerError)(_as_response)
    Reader = Annotated[Person, Depends(access)]  # noqa: N806 - a type
    Writer = Annotated[Person, Depends(writer)]  # noqa: N806 - a type
    Here = Annotated[Gallery, Depends(here)]  # noqa: N806 - a type

    @app.get("/")
    def show_gallery(request: Request, person: Reader, gallery: Here) -> HTMLResponse:
        selection = Selection.from_query(request.query_params.multi_items(), gallery.groups)
        return HTMLResponse(
            pages.gallery(gallery.page(selection), gallery.groups, person.may_write)
        )

    @app.get("/picture/{image_id}")
    def show_picture(image_id: ImageId, person: Reader, gallery: Here) -> HTMLResponse:
        card, history = gallery.card(image_id), gallery.history(image_id)
        return HTMLResponse(pages.picture(card, history, gallery.groups, person.may_write))

    @app.get("/rejected")
    def show_rejected(person: Reader, gallery: Here) -> HTMLResponse:
        return HTMLResponse(pages.rejected(gallery.rejected(), person.may_write))

    @app.get("/thumbs/{image_id}.jpg")
    def thumbnail(image_id: ImageId, gallery: Here) -> Response:
        path = gallery.thumbnail(image_id)
        if path is None:
            raise HTTPException(404, "this picture has no thumbnail")
        return FileResponse(path, media_type="image/jpeg", headers=_cached(300))

    @app.get("/static/{name}")
    def static(name: str) -> Response:
        if name not in _STATIC_FILES:
            raise HTTPException(404, f"there is no {name}")
        return FileResponse(STATIC / name, media_type=_STATIC_FILES[name], headers=_cached(60))

    @app.post("/edits")
    def edit(wanted: WantedEdits, person: Writer, gallery: Here) -> JSONResponse:
        edits = [
            Edit(
                edit.image_id,
                edit.group,
                None if edit.tags is None else tuple(edit.tags),
                seen=edit.seen,
                seen_digest=edit.digest,
                kind=edit.kind,
            )
            for edit in wanted.edits
        ]
        image_ids = list(dict.fromkeys(edit.image_id for edit in edits))
        try:
            ids = gallery.edit(edits, person.name)
        except CorrectionConflict as conflict:
            return _conflict(conflict, gallery, image_ids)
        return JSONResponse({"ids": ids, "cards": _cards(gallery, image_ids)})

    @app.post("/undo")
    def undo(wanted: WantedUndo, person: Writer, gallery: Here) -> JSONResponse:
        try:
            image_ids = gallery.undo(wanted.ids, person.name)
        except CorrectionConflict as conflict:
            return _conflict(conflict, gallery, [conflict.correction.image_id])
        return JSONResponse({"cards": _cards(gallery, image_ids)})

    @app.post("/rejected/retry")
    def retry(wanted: WantedRetry, _: Writer, gallery: Here) -> JSONResponse:
        return JSONResponse({"retried": gallery.retry(wanted.locators)})

    return app


def _cards(gallery: Gallery, image_ids: Sequence[str]) -> dict[str, str]:
    """Return the present cards of pictures as HTML, by image id."""
    return {card.image_id: pages.card(card, gallery.groups) for card in gallery.cards(image_ids)}


def _conflict(
    conflict: CorrectionConflict, gallery: Gallery, image_ids: Sequence[str]
) -> JSONResponse:
    content = {"detail": str(conflict), "cards": _cards(gallery, image_ids)}
    return JSONResponse(content, status_code=409)


def _refuse_other_origins(request: Request) -> None:
    """Refuse what a page of another origin could send with this person's cookie.

    Cookies know no ports: a form on MLflow's port would come with Airflow's. A browser says where a
    request comes from, and sends JSON across origins only after asking.
    """
    if request.headers.get("sec-fetch-site") != "same-origin":
        raise HTTPException(403, "only the desk's own pages may write")
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise HTTPException(415, "write as application/json")


async def _with_headers(
    request: Request, call_next: Callable[[Request], Awaitable[Response]]
) -> Response:
    response = await call_next(request)
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def _cached(seconds: int) -> dict[str, str]:
    return {"Cache-Control": f"private, max-age={seconds}"}


async def _as_response(request: Request, error: Exception) -> Response:
    """Return an error as a page to whom reads, as JSON to whom writes."""
    status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 500)
    if request.method != "GET":
        return JSONResponse({"detail": str(error)}, status_code=status)
    root = "../" if "/picture/" in request.url.path else ""
    return HTMLResponse(pages.error(str(error), root), status_code=status)
