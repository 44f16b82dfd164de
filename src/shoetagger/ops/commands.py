"""The command lines of Airflow's and MLflow's servers, and the addresses to open in a browser."""

from __future__ import annotations

from .environment import HOST, Ports, script_path


def airflow_commands(ports: Ports) -> dict[str, list[str]]:
    """Return the command of each of Airflow's servers but the triggerer."""
    airflow = script_path("airflow")
    return {
        # Without it Airflow would serve its log files on all interfaces; the API server reads
        # the files themselves.
        "scheduler": [airflow, "scheduler", "--skip-serve-logs"],
        "dag-processor": [airflow, "dag-processor"],
        "api-server": [airflow, "api-server", "--host", HOST, "--port", str(ports.airflow)],
    }


def mlflow_command(ports: Ports, *options: str) -> list[str]:
    """Return the command of MLflow's server, which asks for a login."""
    address = ("--host", HOST, "--port", str(ports.mlflow))
    login = ("--app-name", "basic-auth")
    return [script_path("mlflow"), "server", *address, *login, "--workers", "1", *options]


def addresses(ports: Ports, mlflow: str) -> str:
    """Return where people find Airflow and MLflow, in two lines."""
    return f"Airflow  {ports.airflow_url}   (`make login` shows the passwords)\nMLflow   {mlflow}"
