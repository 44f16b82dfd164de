"""The login of the MLflow server that `make up` starts: written once, read by server and clients.

The file is what MLflow's basic-auth app takes as its configuration, with a section for clients.
"""

from __future__ import annotations

import configparser
import io
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ..atomic import atomic_write
from ..config.settings import sqlite_url

USER = "admin"
_HOSTS = ("127.0.0.1", "localhost", "::1")
# Seconds for which the server need not check a password again, which takes it a tenth of a second.
_CACHE_SECONDS = "600"


@dataclass(frozen=True)
class Login:
    """Who gets in, and where."""

    server: str  # such as http://127.0.0.1:5000
    user: str
    password: str


def login_file(artifacts: Path) -> Path:
    """Return the file of the login: beside the root of the artifacts."""
    return artifacts.parent / "login.ini"


def users_file(artifacts: Path) -> Path:
    """Return the database of users that the server makes from the login when it starts."""
    return artifacts.parent / "users.db"


def ensure_login(artifacts: Path, server: str) -> Login:
    """Return the login for a server, with the password that there is, else with a new one."""
    found = read_login(artifacts)
    login = Login(server, USER, found.password if found else secrets.token_urlsafe(12))
    if login != found:
        _write(artifacts, login)
    return login


def read_login(artifacts: Path) -> Login | None:
    """Return the login, or None before the first `make up`."""
    parser = configparser.ConfigParser()
    if not parser.read(login_file(artifacts), encoding="utf-8"):
        return None
    server = parser["mlflow"]
    return Login(parser["client"]["server"], server["admin_username"], server["admin_password"])


def is_own(tracking_uri: str, artifacts: Path) -> bool:
    """Return whether an address is that of the server which `make up` starts, however written."""
    return _is_server_of(read_login(artifacts), tracking_uri)


def login_variables(tracking_uri: str, artifacts: Path) -> dict[str, str]:
    """Return the variables with which MLflow's client logs in; none for a server of another."""
    login = read_login(artifacts)
    names_user = urlsplit(tracking_uri).username is not None
    if login is None or names_user or not _is_server_of(login, tracking_uri):
        return {}
    return {"MLFLOW_TRACKING_USERNAME": login.user, "MLFLOW_TRACKING_PASSWORD": login.password}


def _is_server_of(login: Login | None, tracking_uri: str) -> bool:
    uri = urlsplit(tracking_uri)
    if uri.scheme != "http" or uri.hostname not in _HOSTS or login is None:
        return False
    return urlsplit(login.server).port == uri.port


def _write(artifacts: Path, login: Login) -> None:
    parser = configparser.ConfigParser()
    parser["mlflow"] = {
        "admin_username": login.user,
        "admin_password": login.password,
        "database_uri": sqlite_url(users_file(artifacts)).replace("%", "%%"),
        "default_permission": "NO_PERMISSIONS",
        "authorization_function": "mlflow.server.auth:authenticate_request_basic_auth",
        "auth_cache_ttl_seconds": _CACHE_SECONDS,
    }
    parser["client"] = {"server": login.server}
    text = io.StringIO()
    parser.write(text)
    with atomic_write(login_file(artifacts)) as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text.getvalue().encode())
