"""The connection to MLflow."""

from __future__ import annotations

import logging
import os
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from ..config.settings import redacted
from ..errors import ShoetaggerError, TransientError
from .login import is_own, login_variables

if TYPE_CHECKING:
    from mlflow import MlflowClient


EXPERIMENT = "shoetagger"
# MLflow's pages know two kinds of work: models, with their registry, and GenAI, which they take for
# granted where neither the address nor the experiment says otherwise.
_KIND = {"mlflow.experimentKind": "custom_model_development"}
_MODE = "workflowType=machine_learning"
_DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


class TrackingError(ShoetaggerError):
    """MLflow, or the outbox of what waits for it, cannot be used."""


class MLflowUnavailable(TrackingError, TransientError):  # noqa: N818 - reads as what happened
    """MLflow does not answer, or something else answers in its place; a retry may succeed."""


class MLflowRefused(TrackingError):  # noqa: N818 - reads as what happened
    """MLflow refuses a request, and would refuse it again."""


# Error codes of MLflow that no repetition will change.
REFUSALS = frozenset(
    {
        "INVALID_PARAMETER_VALUE",
        "INVALID_STATE",
        "RESOURCE_ALREADY_EXISTS",
        "RESOURCE_DOES_NOT_EXIST",
    }
)


def load_mlflow() -> None:
    """Import MLflow (seconds) with telemetry and unpickling off, unless the user set them."""
    for name, value in {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        # Models list their requirements themselves; MLflow must not add those of a uv.lock nearby.
        "MLFLOW_UV_AUTO_DETECT": "false",
    }.items():
        os.environ.setdefault(name, value)
    import mlflow  # noqa: F401 - its environment had to be set first


def connect(tracking_uri: str) -> MlflowClient:
    """Return a client of MLflow; an SQLite database is created or migrated first."""
    prepare(tracking_uri)
    load_mlflow()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri, registry_uri=tracking_uri)


_prepared: set[str] = set()


def prepare(tracking_uri: str) -> None:
    """Create or migrate an SQLite tracking database; do nothing for other kinds of URI.

    One process does it while others wait: two of MLflow's migrations at once corrupt the database
    for good. Raises TrackingError where it cannot be opened.
    """
    if not tracking_uri.startswith("sqlite:///") or tracking_uri in _prepared:
        return
    load_mlflow()
    from alembic.util import CommandError
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import SQLAlchemyError

    path = Path(make_url(tracking_uri).database or "")  # where `%` and `?` are not escaped
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f"{path.name}.lock"), timeout=120):
            # MLflow would spend minutes on a database that cannot be opened.
            sqlite3.connect(path).close()
            upgrade(tracking_uri)
    except Timeout:
        raise TrackingError(
            f"another process has been migrating {path} for two minutes: wait for it or end it"
        ) from None
    except (OSError, sqlite3.Error, SQLAlchemyError, CommandError) as error:
        raise TrackingError(f"the MLflow database {path} cannot be opened: {error}") from error
    _prepared.add(tracking_uri)


def upgrade(database: str) -> None:
    """Create or migrate the tables of a tracking database, while nothing else uses it."""
    load_mlflow()
    import mlflow.db

    command = mlflow.db.upgrade.callback  # what `mlflow db upgrade` runs
    assert command is not None
    command(database)


def experiment_id(client: MlflowClient, artifacts: Path) -> str:
    """Return the id of this project's experiment; create it where there is none.

    A database, and the server that `make up` starts, keep their files under `artifacts`, so that
    clients of either read the same files. Any other server uses its own place, wherever it is: one
    on this machine, too, may be the end of a tunnel.
    """
    from mlflow.exceptions import MlflowException

    is_server = urlsplit(client.tracking_uri).scheme in ("http", "https")
    ours = not is_server or is_own(client.tracking_uri, artifacts)
    root = artifacts.absolute().as_uri() if ours else None
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        try:
            return str(client.create_experiment(EXPERIMENT, root, tags=_KIND))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(EXPERIMENT)  # another process was faster
            assert found is not None
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    for key, value in _KIND.items():
        if key not in found.tags:  # made before the kind was set, or by hand
            client.set_experiment_tag(found.experiment_id, key, value)
    return str(found.experiment_id)


def page(address: str, place: str = "") -> str:
    """Return the address of a page of MLflow's UI, such as `models`, with models in its menu.

    A server on this machine is named `localhost`: its pages then get no cookies of Airflow, which
    is shown at 127.0.0.1.
    """
    named = address.rstrip("/").replace("//127.0.0.1:", "//localhost:")
    return f"{named}/#/{place}?{_MODE}"


def tagged_run(client: MlflowClient, experiment: str, key: str, value: str) -> str | None:
    """Return the id of the latest run whose tag `key` is `value`, or None."""
    order = ["attributes.start_time DESC"]
    condition = f'tags.`{key}` = "{value}"'
    runs = client.search_runs([experiment], condition, max_results=1, order_by=order)
    return str(runs[0].info.run_id) if runs else None


class Connection:
    """MLflow and this project's experiment there, connected to on first use."""

    def __init__(self, tracking_uri: str, artifacts: Path, *, seconds: int) -> None:
        """`seconds` bounds the wait for each response of a server."""
        self._uri, self._artifacts, self._seconds = tracking_uri, artifacts, seconds
        self._client: MlflowClient | None = None
        self._experiment = ""

    @contextmanager
    def open(self) -> Iterator[tuple[MlflowClient, str]]:
        """Yield the client and the experiment's id; MLflowUnavailable where there is no MLflow.

        Errors of MLflow that the block does not catch become MLflowUnavailable, too, or
        MLflowRefused where a repetition would fail as well.
        """
        load_mlflow()
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            with (
                _silenced("mlflow", "urllib3"),
                _request_variables(self._uri, self._artifacts, self._seconds),
            ):
                if self._client is None:
                    _check_database_port(self._uri)
                    client = connect(self._uri)
                    self._experiment = experiment_id(client, self._artifacts)
                    self._client = client
                yield self._client, self._experiment
        except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError, TrackingError) as error:
            if isinstance(error, MlflowException) and error.error_code in REFUSALS:
                raise MLflowRefused(_refusal(self._uri, error)) from error
            raise MLflowUnavailable(_reason(self._uri, error)) from error


@contextmanager
def _request_variables(tracking_uri: str, artifacts: Path, seconds: int) -> Iterator[None]:
    """Set, within the block, the variables that MLflow reads at each request.

    `seconds` bounds the wait, without retries, for MLflow's defaults add up to minutes; values that
    the user has set are kept. The address is for the functions of MLflow that take no client, such
    as the download of artifacts. The login is that of the server that `make up` starts.
    """
    variables = {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(seconds),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    }
    changed = {name: value for name, value in variables.items() if name not in os.environ}
    changed |= {"MLFLOW_TRACKING_URI": tracking_uri, **login_variables(tracking_uri, artifacts)}
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _silenced(*names: str) -> Iterator[None]:
    """Silence loggers within the block: they would print tracebacks of errors caught here."""
    before = {name: logging.getLogger(name).level for name in names}
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def _reason(tracking_uri: str, error: BaseException) -> str:
    """Return one line with the address, without a password, and the cause of the failure."""
    url = redacted(tracking_uri)
    while (deeper := error.__cause__ or error.__context__) is not None:
        error = deeper
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if "error code 401" in lines[0]:
        return (
            f"MLflow at {url} asks for a login: set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD"
        )
    return f"MLflow at {url} does not answer as it should ({redacted(lines[0])[:200]})"


def _refusal(tracking_uri: str, error: BaseException) -> str:
    """Return one line with the address, without a password, and what MLflow refuses."""
    reason = redacted(" ".join(str(error).split()))
    return f"MLflow at {redacted(tracking_uri)} refuses a request: {reason[:500]}"


def _check_database_port(tracking_uri: str) -> None:
    """Raise OSError where a database server cannot be reached: MLflow would try for minutes."""
    from sqlalchemy.engine import make_url

    usual = _DATABASE_PORTS.get(tracking_uri.partition(":")[0].partition("+")[0])
    if usual is None:
        return
    try:
        url = make_url(tracking_uri)
    except ValueError:
        raise OSError("its port is no number") from None
    if url.host:
        socket.create_connection((url.host, url.port or usual), timeout=5).close()
