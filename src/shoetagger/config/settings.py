"""Where things are: read once from the environment, with embedded defaults inside the repo."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from getpass import getuser
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import ShoetaggerError
from .places import Place, place, root

# Of Airflow: one slot per task that fills a GPU, or all cores.
GPU_POOL = "gpu"

# Among what is published: what all of it depends on. Without it, all days are written again.
PUBLISHED_FORMAT = ".format"

# Among what is published: the previews that the desk shows, which cleaning removes after a while.
PREVIEWS = "previews"

_USER_INFO = re.compile(r"([A-Za-z][\w+.-]*://)[^\s/?#]*@")
_QUERY_SECRET = re.compile(
    r"([?&;][^=&\s]*(?:passw(?:or)?d|passphrase|pwd|secret|token|credential|signature|_key)="
    r"|[?&;]sig=|\bAccountKey=)"  # of Azure
    r"[^&\s#'\"]*",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Settings:
    """The places of one installation; docs/CONFIGURATION.md explains the environment variables."""

    repo: Path
    home: Path
    inbox: Place
    # These may hold a secret.
    store_url: str = field(repr=False)
    tracking_uri: str = field(repr=False)
    device: str
    notify_url: str | None = field(default=None, repr=False)
    mlflow_url: str | None = None  # where people open MLflow, if not where programs do
    gpu_queue: str | None = None  # of Airflow, for tasks in GPU_POOL; None is its default queue
    published_place: Place | None = None  # None: in the state
    share_results: bool = True  # of stages, with other workers, through DVC's remote

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Read every place from `environ`; a variable that is unset or empty has its default."""
        repo = find_repo(environ.get("SHOETAGGER_REPO") or None)
        home = Path(environ.get("SHOETAGGER_HOME") or repo / ".shoetagger").absolute()
        device = environ.get("SHOETAGGER_DEVICE") or "auto"
        if device not in ("auto", "cpu") and not device.startswith("cuda"):
            raise ShoetaggerError(
                f"SHOETAGGER_DEVICE={device!r} is not a device: use auto, cpu, cuda or cuda:N"
            )
        settings = cls(
            repo=repo,
            home=home,
            inbox=place(environ.get("SHOETAGGER_INBOX") or str(home / "inbox"), "SHOETAGGER_INBOX"),
            store_url=_absolute(environ.get("SHOETAGGER_STORE_URL"))
            or sqlite_url(home / "store.db"),
            tracking_uri=_tracking_uri(environ) or _mlflow_database(home),
            device=device,
            notify_url=environ.get("SHOETAGGER_NOTIFY_URL") or None,
            mlflow_url=_web_address(environ, "SHOETAGGER_MLFLOW_URL"),
            gpu_queue=environ.get("SHOETAGGER_GPU_QUEUE") or None,
            share_results=_yes_or_no(environ, "SHOETAGGER_SHARE_RESULTS", default=True),
            published_place=_place_if_set(environ, "SHOETAGGER_PUBLISHED"),
        )
        _refuse_published_in_inbox(settings)
        return settings

    def as_environment(self) -> dict[str, str]:
        """Return the variables from which `from_environment` makes equal settings elsewhere."""
        return {
            "SHOETAGGER_REPO": str(self.repo),
            "SHOETAGGER_HOME": str(self.home),
            "SHOETAGGER_INBOX": str(self.inbox),
            "SHOETAGGER_STORE_URL": self.store_url,
            "SHOETAGGER_DEVICE": self.device,
            "SHOETAGGER_NOTIFY_URL": self.notify_url or "",
            "SHOETAGGER_MLFLOW_URL": self.mlflow_url or "",
            "SHOETAGGER_GPU_QUEUE": self.gpu_queue or "",
            "SHOETAGGER_SHARE_RESULTS": "yes" if self.share_results else "no",
            "SHOETAGGER_PUBLISHED": str(self.published_place or ""),
            "MLFLOW_TRACKING_URI": self.tracking_uri,
        }

    @property
    def params_file(self) -> Path:
        return self.repo / "params.yaml"

    @property
    def mlflow_database(self) -> str:
        """URL of the embedded database that MLflow keeps runs and versions in."""
        return _mlflow_database(self.home)

    @property
    def artifacts(self) -> Path:
        """Root of MLflow's artifacts, which its server and its clients read directly."""
        return self.home / "mlflow" / "artifacts"

    @property
    def outbox(self) -> Path:
        """Runs that wait until MLflow can be reached."""
        return self.home / "outbox"

    @property
    def checkouts(self) -> Path:
        """Checkouts of the commits that the training DAG works on."""
        return self.home / "checkouts"

    @property
    def bundles(self) -> Path:
        """Local cache of registered bundles: one folder per digest."""
        return self.home / "bundles"

    @property
    def features(self) -> Path:
        """States of pictures that the stage `features` has computed, for its next run."""
        return self.home / "features"

    @property
    def audit(self) -> Path:
        """Where `shoetagger audit` writes, by default, and where the desk looks for it."""
        return self.repo / "audit"

    @property
    def published(self) -> Place:
        """Parquet, CSV and pages that others read: a folder or a bucket."""
        return self.published_place or self.home / "published"


def _mlflow_database(home: Path) -> str:
    return sqlite_url(home / "mlflow" / "mlflow.db")


def sqlite_url(path: Path) -> str:
    """Return the URL of a SQLite file; `%` and `?` in its path are escaped."""
    return "sqlite:///" + str(path).replace("%", "%25").replace("?", "%3F")


def redacted(text: str) -> str:
    """Return a URL, or a text with URLs in it, without their secrets, to show or log it.

    These are the user name, password or token before a host, and what a query or a connection
    string calls a password, token, key or signature.
    """
    return _QUERY_SECRET.sub(r"\1***", _USER_INFO.sub(r"\1", text))


def _place_if_set(environ: Mapping[str, str], variable: str) -> Place | None:
    address = environ.get(variable) or None
    return address and place(address, variable)


def _refuse_published_in_inbox(settings: Settings) -> None:
    """Raise ShoetaggerError where what is published would arrive as pictures.

    By the names alone: a share that hangs must not keep a program from starting.
    """
    inbox, state, published = map(root, (settings.inbox, settings.home, settings.published))
    # What is hidden is left out of the inbox, and so is the state.
    left_out = "/." in published.removeprefix(inbox.rstrip("/"))
    left_out |= state.startswith(inbox) and published.startswith(state)
    if published.startswith(inbox) and not left_out:
        raise ShoetaggerError(
            f"what is published in {settings.published} would arrive in the inbox "
            f"{settings.inbox}: set SHOETAGGER_PUBLISHED to a place outside of it"
        )


def _web_address(environ: Mapping[str, str], variable: str) -> str | None:
    """Return an address for browsers, without its login; None where none is set."""
    address = environ.get(variable) or None
    if address is not None and not address.startswith(("http://", "https://")):
        raise ShoetaggerError(
            f"{variable}={redacted(address)!r} is no address to open in a browser: begin it with "
            "https:// or http://"
        )
    return address and redacted(address)


def _tracking_uri(environ: Mapping[str, str]) -> str:
    """Return MLflow's address; empty where none is set."""
    address = _absolute(environ.get("MLFLOW_TRACKING_URI"))
    if not address.startswith(("http://", "https://")):  # others are read by SQLAlchemy and MLflow
        return address
    try:
        _ = urlsplit(address).port
    except ValueError:  # its words may have a part of a password
        raise ShoetaggerError(
            "MLFLOW_TRACKING_URI is no address: the port is no number, or a sign of the password "
            "is not escaped; write it as http://host:5000"
        ) from None
    return address


def _yes_or_no(environ: Mapping[str, str], variable: str, *, default: bool) -> bool:
    answer = environ.get(variable) or ("yes" if default else "no")
    if answer not in ("yes", "no"):
        raise ShoetaggerError(f"{variable}={answer!r} is no answer: use yes or no")
    return answer == "yes"


def _absolute(url: str | None) -> str:
    """Return a URL with an absolute path if it names a SQLite file by a relative one."""
    scheme, relative, path = (url or "").partition("sqlite:///")
    if scheme or not relative or not path or path.startswith((":", "/", "file:")):
        return url or ""
    return f"sqlite:///{Path(path).absolute()}"


def find_repo(named: str | None) -> Path:
    """Return the repo to work in: `named`, else the one around the working directory or this file.

    A repo is a folder with `params.yaml` and `dvc.yaml`. Raises ShoetaggerError if there is none.
    """
    if named:
        if not (Path(named) / "params.yaml").is_file():
            raise ShoetaggerError(
                f"SHOETAGGER_REPO={named} holds no params.yaml: name the folder of the project"
            )
        return Path(named).absolute()
    here = Path.cwd()
    source_tree = Path(__file__).absolute().parents[3]
    for folder in (here, *here.parents, source_tree):
        if (folder / "params.yaml").is_file() and (folder / "dvc.yaml").is_file():
            return folder
    raise ShoetaggerError(
        f"no project around {here}: change into the repo, or set SHOETAGGER_REPO to its folder"
    )


def user() -> str:
    """Return the name of the current user, for MLflow runs and the ledger; without one, the id."""
    try:
        return getuser()
    except (KeyError, OSError):  # a user id without a name, as containers have
        return str(os.getuid())
