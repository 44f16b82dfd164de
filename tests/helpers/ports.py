"""Ports for servers that a test starts."""

from __future__ import annotations

import secrets
import socket

from shoetagger.ops.environment import HOST, Ports

# Below those that Linux gives to outgoing connections: one of these could take a port between the
# look and the server's start. Above those that servers have by default.
_LOWEST, _HIGHEST = 12_000, 32_000


def free_ports() -> Ports:
    """Return two of them, for Airflow and MLflow."""
    airflow = free_port()
    while (mlflow := free_port()) == airflow:
        pass
    return Ports(airflow, mlflow)


def free_port() -> int:
    """Return a port of this machine that nothing listens on, and no connection will take."""
    while True:
        port = _LOWEST + secrets.randbelow(_HIGHEST - _LOWEST)
        if is_free(port):
            return port


def is_free(port: int) -> bool:
    """Tell whether nothing listens on a port of this machine."""
    with socket.socket() as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True
