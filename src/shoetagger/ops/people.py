"""Who may log in to Airflow: its admin and SHOETAGGER_USERS, with the passwords made for them."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from ..errors import ShoetaggerError

ADMIN = "admin"

# Of Airflow's simple auth manager: a viewer looks, a user writes on the desk and approves.
ROLES = ("viewer", "user", "op", "admin")


def people(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return name -> role of all who may log in; raises ShoetaggerError that names a fault."""
    found = {ADMIN: "admin"}
    for entry in filter(None, map(str.strip, environ.get("SHOETAGGER_USERS", "").split(","))):
        name, _, role = entry.partition(":")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) or role not in ROLES:
            raise ShoetaggerError(
                f"SHOETAGGER_USERS: {entry!r} is no user: write name:role, with letters, digits, "
                f". _ and - in the name, and one of the roles {', '.join(ROLES)}"
            )
        if name in found:
            raise ShoetaggerError(
                f"SHOETAGGER_USERS: {name} is there twice, or the admin's own name"
            )
        found[name] = role
    return found


def passwords(file: Path) -> dict[str, str]:
    """Return the passwords in a file by name; raises ShoetaggerError before the first set-up."""
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ShoetaggerError("Airflow is not set up yet: run `make up`") from None


def with_new_passwords(known: Mapping[str, str]) -> dict[str, str]:
    """Return the known passwords, and one for everybody who has none yet."""
    return {name: secrets.token_urlsafe(12) for name in people()} | dict(known)
