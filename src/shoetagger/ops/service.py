"""A systemd user unit that starts the servers when the machine has started."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from ..config.settings import Settings
from .environment import Ports
from .setup import write_private

NAME = "shoetagger.service"
# Besides those of Settings and Ports: what the servers read, of what this process was given.
_PASSED_ON = (
    "AIRFLOW__CORE__PARALLELISM",
    "HF_HOME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_USERNAME",
    "OMP_WAIT_POLICY",
    "SHOETAGGER_GPU_SLOTS",
    "SHOETAGGER_SHARE_RESULTS",
    "SHOETAGGER_STATSD",
    "SHOETAGGER_USERS",
    "TORCH_HOME",
)
# And what clients of object stores read.
_OF_OBJECT_STORES = ("AWS_", "AZURE_", "GOOGLE_")
# And what every client of the network reads, in capitals or not.
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
_UNIT = """\
[Unit]
Description=shoetagger: Airflow and MLflow

[Service]
Type=oneshot
RemainAfterExit=yes
WorkingDirectory={repo}
EnvironmentFile={variables}
ExecStart={python} -m shoetagger.ops.servers up
ExecStop={python} -m shoetagger.ops.servers down
TimeoutStartSec=15min

[Install]
WantedBy=default.target
"""


def write_service(settings: Settings, ports: Ports, environ: Mapping[str, str] = os.environ) -> str:
    """Write the unit and the variables that it sets; return what is left to do, in words.

    The variables are those of now. They may hold secrets, so their file has mode 0600.
    """
    settings.home.mkdir(parents=True, exist_ok=True)
    variables = settings.home / "service.env"
    write_private(variables, environment_file(settings, ports, environ))
    unit = unit_folder(environ) / NAME
    unit.parent.mkdir(parents=True, exist_ok=True)
    text = _UNIT.format(
        repo=_path(settings.repo),
        variables=_path(variables),
        python=_argument(sys.executable),
    )
    unit.write_text(text, encoding="utf-8")
    # systemd warns of a unit that others may write, which a wide umask would make.
    unit.chmod(0o644)
    return (
        f"{unit} is written. These start the servers now and after each reboot:\n"
        "  systemctl --user daemon-reload\n"
        f"  systemctl --user enable --now {NAME}\n"
        "  loginctl enable-linger       # without it, only while you are logged in"
    )


def unit_folder(environ: Mapping[str, str]) -> Path:
    """Return where systemd looks for the units of this user."""
    config = environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(config) / "systemd" / "user"


def environment_file(settings: Settings, ports: Ports, environ: Mapping[str, str]) -> str:
    """Return the variables of the servers as systemd's EnvironmentFile takes them."""
    variables = settings.as_environment()
    del variables["SHOETAGGER_SHARE_RESULTS"]  # unless it is set, `make up` has its own default
    variables |= {f"{name.upper()}_PORT": str(port) for name, port in asdict(ports).items()}
    variables |= {name: environ[name] for name in _PASSED_ON if environ.get(name)}
    variables |= {k: v for k, v in environ.items() if k.startswith(_OF_OBJECT_STORES) and v}
    variables |= {k: v for k, v in environ.items() if k.upper() in _PROXIES and v}
    return "".join(f"{name}={_quoted(value)}\n" for name, value in variables.items())


def _quoted(value: str) -> str:
    escaped = "".join(f"\\{letter}" if letter in '\\"$`' else letter for letter in value)
    return f'"{escaped}"'


def _path(path: Path) -> str:
    """Return a path as a setting takes it: `%` begins a specifier, and nothing is quoted."""
    return str(path).replace("%", "%%")


def _argument(text: str) -> str:
    """Return an argument of a command line, where `$` begins a variable, too."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return '"' + escaped.replace("$", "$$") + '"'
