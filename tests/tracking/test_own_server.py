"""An MLflow server of somebody's own: its files in S3, its runs in a database, behind a login."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers import object_stores
from helpers.bundles import write_bundle
from helpers.mlflow_server import mlflow_server
from helpers.object_stores import ObjectStore
from mlflow import MlflowClient

from shoetagger.images.decode import Limits
from shoetagger.images.views import Transform
from shoetagger.inference.bundle import load_bundle
from shoetagger.tracking.connection import EXPERIMENT, MLflowUnavailable
from shoetagger.tracking.registry import Registry
from shoetagger.tracking.run import Tracker

PASSWORD = "a long password"
AUTH = """\
[mlflow]
admin_username = admin
admin_password = {password}
database_uri = sqlite:///{folder}/users.db
default_permission = READ
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
"""


@contextmanager
def server(database: str, store: ObjectStore, folder: Path) -> Iterator[str]:
    """The server of docs/OWN_AIRFLOW.md on loopback; yields its address there."""
    (folder / "auth.ini").write_text(AUTH.format(password=PASSWORD, folder=folder))
    variables = store.environment | {
        "MLFLOW_S3_ENDPOINT_URL": store.endpoint,
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "of this test",
    }
    options = ["--app-name", "basic-auth", "--serve-artifacts"]
    options += ["--artifacts-destination", f"s3://{store.bucket()}/mlflow"]
    with mlflow_server(database, folder, *options, variables=variables) as address:
        yield address


@pytest.mark.slow
def test_an_mlflow_with_its_files_in_s3_serves_clients_without_keys(
    empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reached as 127.0.0.1, which says nothing of where it really is."""
    database = f"sqlite:///{empty_database.with_name('served.db')}"
    empty_database.with_name("served.db").write_bytes(empty_database.read_bytes())
    here = tmp_path / "home" / "mlflow" / "artifacts"
    bundle = write_bundle(
        tmp_path / "made", "color", ("black", "white"), transform=Transform(size=32)
    )
    with object_stores.seaweedfs() as store, server(database, store, tmp_path) as address:
        assert not any(name.startswith("AWS_") for name in os.environ)
        with pytest.raises(MLflowUnavailable, match="asks for a login"):
            Registry(address, here).versions("color")
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
        with Tracker(address, tmp_path / "outbox", here).start("train", tags={}, params={}) as run:
            run.log_text("report.txt", "of a run")
        registry = Registry(address, here)
        version = registry.register(
            tmp_path / "made",
            limits=Limits(max_bytes=100_000, max_pixels=1_000_000),
            tags={"data_revision": "0123abcd"},
            metrics={("macro_f1",): 0.7},
        )
        registry.log_files(version, {"comparison.html": b"<p>"})
        assert registry.read_file(version, "comparison.html") == b"<p>"
        fetched = registry.fetch(version, tmp_path / "another machine")
        assert load_bundle(fetched).digest == bundle.digest

        client = MlflowClient(address)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        assert experiment is not None
        assert experiment.artifact_location.startswith("mlflow-artifacts:/")
        keys = {
            found["Key"]
            for bucket in store.client.list_buckets()["Buckets"]
            for found in store.client.list_objects_v2(Bucket=bucket["Name"])["Contents"]
        }
    for name in (f"{run.run_id}/artifacts/report.txt", "bundle/weights.safetensors"):
        assert any(key.startswith("mlflow/") and key.endswith(name) for key in keys), name
    assert not list(here.rglob("*.txt"))
    assert not list(here.rglob("*.safetensors"))
