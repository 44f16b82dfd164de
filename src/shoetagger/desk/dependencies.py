"""What the desk's routes are given: the installation, who asks, and whether they may write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, HTTPException, Request

from .gallery import Gallery


@dataclass(frozen=True)
class Person:
    """Whoever asks, as the surrounding server knows them."""

    name: str
    may_write: bool


def _gallery(request: Request) -> Gallery:
    gallery: Gallery = request.app.state.gallery  # opened when the application starts
    return gallery


def _reader(request: Request) -> Person:
    person: Person = request.state.person  # set by the application's guard, before every route
    return person


def _writer(request: Request, person: Annotated[Person, Depends(_reader)]) -> Person:
    _refuse_other_origins(request)
    if not person.may_write:
        raise HTTPException(403, f"{person.name} may look but not write: ask for the role user")
    return person


def _refuse_other_origins(request: Request) -> None:
    """Refuse what a page of another origin could send with this person's cookie.

    Cookies know no ports: a form on MLflow's port would come with Airflow's. A browser says where a
    request comes from, and sends JSON across origins only after asking.
    """
    if not _is_of_this_origin(request):
        raise HTTPException(
            403,
            "only the desk's own pages may write; if this is one, a proxy has changed the header "
            "Host or removed Origin: let it pass both on",
        )
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise HTTPException(415, "write as application/json")


def _is_of_this_origin(request: Request) -> bool:
    """Return whether the browser says that a page of this very server sends this."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    # Over plain HTTP, other than from this machine, browsers send the origin alone.
    origin, host = request.headers.get("origin"), request.headers.get("host")
    return origin is not None and urlsplit(origin).netloc == host


def refuse_other_sites(request: Request) -> None:
    """Refuse a page of another origin that would make the server work with this person's cookie."""
    if request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        raise HTTPException(403, "only the desk's own pages may ask for this")


# The types of a route's parameters. Each POST takes a Writer.
Here = Annotated[Gallery, Depends(_gallery)]
Reader = Annotated[Person, Depends(_reader)]
Writer = Annotated[Person, Depends(_writer)]
