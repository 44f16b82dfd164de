"""Passwords and tokens in the environment reach no log, no MLflow run and no file of the state."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.installation import bundle_directory, install
from sqlalchemy.engine import make_url

from shoetagger.config import params as parameters
from shoetagger.config.settings import Settings, redacted
from shoetagger.ops.environment import Ports
from shoetagger.ops.servers import _addresses
from shoetagger.pipeline import process
from shoetagger.promotion.versions import PromotionError
from shoetagger.stages.mlflow_run import start_run
from shoetagger.store import postgres
from shoetagger.store.rows import StoreError
from shoetagger.store.store import Store
from shoetagger.tracking.outbox import Outbox

ROOT = Path(__file__).parents[2]
SECRETS = {
    "SHOETAGGER_STORE_URL": "postgresql+psycopg://me:hunter-1@127.0.0.1:9/tags",
    "MLFLOW_TRACKING_URI": "http://me:hunter-2@127.0.0.1:9",
    "SHOETAGGER_NOTIFY_URL": "http://127.0.0.1:9/services/hunter-3",
}


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """What an environment full of secrets says; none of its servers answers."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SHOETAGGER_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("SHOETAGGER_REPO", str(ROOT))
    found = Settings.from_environment()
    found.home.mkdir()
    return found


def test_a_url_is_shown_without_who_is_let_in() -> None:
    assert redacted("https://me:x@y@host:5/path?q") == "https://host:5/path?q"
    assert redacted("https://token@host") == "https://host"
    assert redacted("sqlite:////folder/a@b.db") == "sqlite:////folder/a@b.db"
    in_query = "postgresql://host/tags?user=me&password=x%40y&sslmode=require&sslpassword=z"
    shown = "postgresql://host/tags?user=me&password=***&sslmode=require&sslpassword=***"
    assert redacted(in_query) == shown
    signed = "https://a.blob.core.windows.net/c?sv=2024&sig=s3c%2Bret%3D&se=2026"
    assert redacted(signed) == "https://a.blob.core.windows.net/c?sv=2024&sig=***&se=2026"
    for words in (
        "AccountName=a;AccountKey=s3cret==",
        "AccountKey=s3cret==",
        "a;SharedSig=x;sig=s3c",
    ):
        assert "s3c" not in redacted(words)
    assert redacted("https://host/?design=2&accounts=3") == "https://host/?design=2&accounts=3"
    assert redacted(f"cannot open {in_query} (no http://a:b@c)") == (
        f"cannot open {shown} (no http://c)"
    )


def test_settings_that_get_into_a_log_tell_no_secret(settings: Settings) -> None:
    assert "hunter" in settings.store_url + settings.tracking_uri
    assert "hunter" not in repr(settings)
    assert "hunter" not in _addresses(settings, Ports())


@pytest.mark.slow
@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize("command", ["status", "night", "migrate", "retry"])
def test_a_command_whose_servers_are_away_names_them_without_secrets(
    command: str,
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "shoetagger.cli.app", command],
        cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "127.0.0.1" in done.stderr
    assert "hunter" not in done.stdout + done.stderr


def test_a_store_that_is_away_is_named_without_its_password(settings: Settings) -> None:
    with Store(settings.store_url) as store, pytest.raises(StoreError) as caught:
        store.ledger.live()
    assert "127.0.0.1" in str(caught.value)
    assert "hunter" not in str(caught.value)


def test_a_store_with_its_password_in_the_query_is_named_without_it() -> None:
    with (
        Store("postgresql://127.0.0.1:9/tags?user=me&password=hunter-1") as store,
        pytest.raises(StoreError) as caught,
    ):
        store.ledger.live()
    assert "127.0.0.1" in str(caught.value)
    assert "hunter" not in str(caught.value)
    with pytest.raises(StoreError, match="the store is a file") as caught:
        Store("mysql://me:hunter-1@127.0.0.1:9/tags?password=hunter-2")
    assert "hunter" not in str(caught.value)


TOOL = """#!/bin/sh
echo "$@" > "$SEEN/arguments"
cp -p "$PGSERVICEFILE" "$SEEN/service"
printf %s "$PGPASSWORD" > "$SEEN/password"
"""


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://me:hunter-1@db:9/tags?sslpassword=hunter-2",
        "postgresql:///tags?host=db&port=9&user=me&password=hunter-1&sslpassword=hunter-2",
    ],
)
def test_no_command_line_of_postgresqls_tools_holds_a_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    tool = tmp_path / "pg_dump"
    tool.write_text(TOOL)
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SEEN", str(tmp_path))
    postgres.dump(make_url(url), tmp_path / "out")
    assert "hunter" not in (tmp_path / "arguments").read_text()
    assert (tmp_path / "password").read_text() == "hunter-1"
    service = tmp_path / "service"
    assert stat.S_IMODE(service.stat().st_mode) == 0o600
    lines = service.read_text().splitlines()
    assert lines[0] == "[shoetagger]"
    assert set(lines[1:]) == {
        *("host=db", "port=9", "user=me", "dbname=tags", "sslpassword=hunter-2"),
    }


def test_what_a_remote_says_is_logged_without_its_password(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    code = "print('cannot pull from https://me:hunter-1@example.org/store')"
    result = process._run([sys.executable, "-c", code], tmp_path, os.environ)
    assert result.tail == "cannot pull from https://example.org/store"
    assert "hunter" not in caplog.text.replace(code, "")


@pytest.mark.slow
def test_a_run_takes_no_secret_along(
    settings: Settings, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    options = parameters.load(settings.params_file)
    with start_run(settings, options, "color") as run:
        run.log_metrics({"train_loss": 1.0}, step=1)
    assert "MLflow at http://127.0.0.1:9 does not answer" in caplog.text
    assert "hunter" not in caplog.text
    held = [path.read_bytes() for path in settings.home.rglob("*") if path.is_file()]
    assert any(b"train_loss" in data for data in held)
    assert not any(b"hunter" in data for data in held)

    from mlflow import MlflowClient

    database = f"sqlite:///{tmp_path}/later.db"
    assert Outbox(database, settings.outbox, settings.artifacts).sync().sent == 1
    client = MlflowClient(database)
    experiment = client.get_experiment_by_name("shoetagger")
    assert experiment is not None
    sent = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    mlflow_run = sent.pop("train color")
    (parent,) = sent.values()
    assert "hunter" not in str(parent.to_dictionary())
    assert mlflow_run.data.params["train.arch"] == options.train.arch
    assert "hunter" not in str(mlflow_run.to_dictionary())


def test_a_bundle_that_is_nowhere_is_told_of_without_the_registrys_password(
    tmp_path: Path,
) -> None:
    installed = install(tmp_path)
    away = replace(installed, tracking_uri=SECRETS["MLFLOW_TRACKING_URI"])
    with pytest.raises(PromotionError) as caught:
        bundle_directory(away, "0" * 64)
    assert "127.0.0.1:9" in str(caught.value)
    assert "hunter" not in str(caught.value)
