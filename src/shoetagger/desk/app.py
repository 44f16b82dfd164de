"""The desk as a FastAPI application; whoever mounts it says who may do what."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

from ..errors import ShoetaggerError, TransientError
from ..store.rows import StoreError
from . import pages
from .dependencies import Person
from .gallery import Gallery, UnknownPictureError
from .routers import audit, challengers, edits, files, pictures, rejected, reviews, why
from .selection import SelectionError

# A router per page or concern; every route is behind the guard that `create` puts before all.
ROUTERS = (
    pictures.router,
    why.router,
    edits.router,
    reviews.router,
    rejected.router,
    audit.router,
    challengers.router,
    files.router,
)

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


def create(gallery: Callable[[], Gallery], access: Callable[..., Person]) -> FastAPI:
    """Return the application.

    `access` is a dependency that returns who asks, and refuses those who may not look (401, 403).
    `gallery` opens the installation when the application starts; it is closed at the end.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.gallery = gallery()
        yield
        app.state.gallery.close()

    def guard(request: Request, person: Annotated[Person, Depends(access)]) -> None:
        request.state.person = person

    app = FastAPI(
        lifespan=lifespan,
        dependencies=[Depends(guard)],
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    app.middleware("http")(_with_headers)
    app.exception_handler(ShoetaggerError)(_as_response)
    for router in ROUTERS:
        app.include_router(router)
    return app


async def _with_headers(
    request: Request, call_next: Callable[[Request], Awaitable[Response]]
) -> Response:
    response = await call_next(request)
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    return response


async def _as_response(request: Request, error: Exception) -> Response:
    """Return an error as a page to whom reads, as JSON to whom writes."""
    status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 500)
    if request.method != "GET":
        return JSONResponse({"detail": str(error)}, status_code=status)
    path = request.url.path.removeprefix(request.scope.get("root_path", ""))
    root = "../" * (path.count("/") - 1)
    return HTMLResponse(pages.error(str(error), root), status_code=status)
