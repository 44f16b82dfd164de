"""The systemd unit that `make service` writes."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest

from shoetagger.config.settings import Settings
from shoetagger.ops.environment import Ports, airflow_environment
from shoetagger.ops.service import environment_file, write_service


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    repo = tmp_path / "100% shoes & boots"
    repo.mkdir()
    (repo / "params.yaml").touch()
    url = 'postgresql://me:a"b$c\\d`e@host/tags'
    return Settings.from_environment({"SHOETAGGER_REPO": str(repo), "SHOETAGGER_STORE_URL": url})


def test_the_unit_is_one_that_systemd_takes_and_keeps_its_secrets_private(
    settings: Settings, tmp_path: Path
) -> None:
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "config"), "HOME": str(tmp_path)}
    usual = os.umask(0)
    try:
        steps = write_service(settings, Ports(8081, 5001), environ)
    finally:
        os.umask(usual)
    unit = tmp_path / "config" / "systemd" / "user" / "shoetagger.service"
    assert str(unit) in steps
    assert "enable --now shoetagger.service" in steps
    text = unit.read_text()
    assert "shoetagger.ops.servers up\n" in text
    assert f"WorkingDirectory={str(settings.repo).replace('%', '%%')}\n" in text
    assert "host/tags" not in text
    assert stat.S_IMODE((settings.home / "service.env").stat().st_mode) == 0o600
    assert stat.S_IMODE(unit.stat().st_mode) == 0o644
    if (tool := shutil.which("systemd-analyze")) is None:
        pytest.skip("the unit's content was checked, but there is no systemd-analyze here")
    # systemd looks at all units, and with some the paths of sockets begin with this folder's.
    with tempfile.TemporaryDirectory(prefix="shoetagger-") as short:
        checked = subprocess.run(
            [tool, "--user", "--man=no", "verify", str(unit)],
            env=os.environ | environ | {"XDG_RUNTIME_DIR": short},
            capture_output=True,
            text=True,
        )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_service_gets_the_variables_of_now(settings: Settings) -> None:
    given = {"SHOETAGGER_GPU_SLOTS": "2", "TORCH_HOME": "/big disk/torch", "SECRET": "x"}
    given |= {"AWS_ENDPOINT_URL": "https://storage.example", "AWS_ACCESS_KEY_ID": "me"}
    text = environment_file(settings, Ports(8081, 5001), given)
    # A shell reads these lines as systemd does.
    read = dict(shlex.split(line)[0].split("=", 1) for line in text.splitlines())
    assert read["SHOETAGGER_STORE_URL"].startswith("postgresql://me:")
    echoed = subprocess.run(
        ["sh", "-c", f'{text}\nprintf %s "$SHOETAGGER_STORE_URL"'], capture_output=True, text=True
    )
    assert echoed.stdout == settings.store_url
    assert (read["AIRFLOW_PORT"], read["MLFLOW_PORT"]) == ("8081", "5001")
    assert (read["SHOETAGGER_GPU_SLOTS"], read["TORCH_HOME"]) == ("2", "/big disk/torch")
    assert (read["AWS_ENDPOINT_URL"], read["AWS_ACCESS_KEY_ID"]) == (
        "https://storage.example",
        "me",
    )
    assert "SECRET" not in read


def test_the_service_settles_nothing_that_make_up_would_not(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shares_results(given: dict[str, str]) -> str:
        lines = environment_file(settings, Ports(), given).splitlines()
        with monkeypatch.context() as patch:
            patch.delenv("SHOETAGGER_SHARE_RESULTS", raising=False)
            for line in lines:
                patch.setenv(*shlex.split(line)[0].split("=", 1))
            return airflow_environment(settings, Ports())["SHOETAGGER_SHARE_RESULTS"]

    assert shares_results({}) == "no"
    assert shares_results({"SHOETAGGER_SHARE_RESULTS": "yes"}) == "yes"


def test_the_service_sends_metrics_and_finds_the_network_and_the_weights_as_now(
    settings: Settings,
) -> None:
    given = {
        "SHOETAGGER_STATSD": "127.0.0.1:8125",
        "HTTPS_PROXY": "http://me:secret@proxy:3128",
        "no_proxy": "localhost",
        "HF_HOME": "/big/hf",
    }
    lines = environment_file(settings, Ports(), given).splitlines()
    assert {f'{name}="{value}"' for name, value in given.items()} <= set(lines)
