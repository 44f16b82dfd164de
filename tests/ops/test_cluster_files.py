"""The environment files of deploy/, and what `make cluster` says before it starts anything."""

from __future__ import annotations

import pwd
import re
import shutil
import stat
import sysconfig
from pathlib import Path
from string import Template

import psutil
import pytest
import yaml
from dotenv import dotenv_values

from shoetagger.config.params import load
from shoetagger.config.settings import Settings
from shoetagger.ops.cluster import services, site
from shoetagger.ops.cluster.start import cluster
from shoetagger.ops.environment import Ports, ServersError
from shoetagger.ops.processes import Started, write_state
from shoetagger.ops.servers import up
from shoetagger.orchestration.dag_parts import AFTER_BUDGET, LIMITS

ROOT = Path(__file__).parents[2]
FILES = ("workers", "servers", "mlflow")
# Of PostgreSQL's own user, who is no matter of the files' on other hosts.
OF_ONE_MACHINE = {"SUPERUSER_PASSWORD"}


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.delenv("SHOETAGGER_INBOX", raising=False)
    home = tmp_path / "home"
    site_folder = home / "cluster"
    site_folder.mkdir(parents=True)
    return Settings.from_environment({"SHOETAGGER_REPO": str(ROOT), "SHOETAGGER_HOME": str(home)})


def write(settings: Settings) -> dict[str, str]:
    return site.write_site(settings, Ports(), site.ServicePorts(1, 2, 3, 4, 5, 6))


def test_the_example_has_every_value_that_the_files_need_and_no_other(settings: Settings) -> None:
    example = dotenv_values(ROOT / "deploy" / "site.env", interpolate=False)
    needed = identifiers((ROOT / "deploy" / "mlflow-auth.ini").read_text())
    for name in FILES:
        for text in dotenv_values(ROOT / "deploy" / f"{name}.env", interpolate=False).values():
            needed |= identifiers(text or "")
    assert set(example) == needed
    assert set(write(settings)) == needed | OF_ONE_MACHINE


def identifiers(text: str) -> set[str]:
    return set(Template(text).get_identifiers())


def test_a_worker_gets_no_secret_of_the_servers_from_the_files(settings: Settings) -> None:
    values = write(settings)
    environment = site.worker_environment(settings, values, "worker-a")
    # The parts of the example file that are no worker's.
    _, _, of_servers = (ROOT / "deploy" / "site.env").read_text().partition("and no worker")
    secrets = re.findall(r"(?m)^(\w+)=change-me", of_servers)
    assert {"FERNET_KEY", "JWT_SECRET", "METADATA_PASSWORD", "MLFLOW_S3_SECRET"} <= set(secrets)
    for secret in (*secrets, *OF_ONE_MACHINE):
        assert not [name for name, value in environment.items() if values[secret] in value], secret
    servers = site.server_environment(settings, values, "scheduler")
    assert values["FERNET_KEY"] in servers.values()


def test_the_outer_environment_of_another_airflow_does_not_reach_ours(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql://theirs")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "theirs")
    monkeypatch.setenv("SHOETAGGER_DEVICE", "cpu")
    environment = site.worker_environment(settings, write(settings), "worker-a")
    assert "theirs" not in " ".join(environment.values())
    assert environment["SHOETAGGER_DEVICE"] == "cpu"


def test_secrets_are_generated_once_for_their_owner_only(settings: Settings) -> None:
    first = write(settings)
    assert stat.S_IMODE(site.site_file(settings).stat().st_mode) == 0o600
    again = site.write_site(settings, Ports(), site.ServicePorts(9, 2, 3, 4, 5, 6))
    changed = {name for name in first if first[name] != again[name]}
    assert changed == {"POSTGRES"}
    assert site.read_site(settings) == again


def test_a_value_that_is_missing_is_named_with_its_file(settings: Settings) -> None:
    values = write(settings)
    del values["BROKER_PASSWORD"]
    with pytest.raises(ServersError, match=r"workers\.env: .* needs a value for 'BROKER_PASSWORD'"):
        site.filled(settings, values, "workers")


def test_no_message_is_handed_out_again_while_its_task_may_still_run() -> None:
    """Nor does a task that waits for a worker fail within a week."""
    workers = dotenv_values(ROOT / "deploy" / "workers.env")
    servers = dotenv_values(ROOT / "deploy" / "servers.env")
    tagging = load(ROOT / "params.yaml").tag.budget_minutes * 60 + AFTER_BUDGET.total_seconds()
    longest = max(tagging, *(limit.total_seconds() for limit in LIMITS.values()))
    visibility = workers["AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT"]
    assert int(visibility or 0) > longest
    timeout, retries = (
        int(servers[f"AIRFLOW__SCHEDULER__{name}"] or 0)
        for name in ("TASK_QUEUED_TIMEOUT", "NUM_STUCK_IN_QUEUED_RETRIES")
    )
    assert timeout * retries > 7 * 24 * 3600


def test_the_values_for_the_chart_are_those_of_the_files() -> None:
    """But for the auth manager, of which the chart has another default than Airflow."""
    chart = yaml.safe_load((ROOT / "deploy" / "helm-values.yaml").read_text())
    values = {
        f"AIRFLOW__{section.upper()}__{key.upper()}": str(value)
        for section, options in chart["config"].items()
        for key, value in options.items()
    }
    module, _, name = values.pop("AIRFLOW__CORE__AUTH_MANAGER").rpartition(".")
    source = Path(sysconfig.get_path("purelib"), *module.split(".")).with_suffix(".py")
    assert f"class {name}(" in source.read_text()
    example = dotenv_values(ROOT / "deploy" / "site.env", interpolate=False)
    example["REPO"] = "/opt/shoetagger"
    files = {
        variable: Template(text or "").substitute(example)
        for name in ("workers", "servers")
        for variable, text in dotenv_values(
            ROOT / "deploy" / f"{name}.env", interpolate=False
        ).items()
    }
    assert values == {variable: files.get(variable) for variable in values}


def test_the_workers_of_the_chart_listen_to_the_queues_of_their_sets() -> None:
    """Arguments of a set's own replace the chart's, which would name its queue."""
    chart = yaml.safe_load((ROOT / "deploy" / "helm-values.yaml").read_text())
    celery = chart["workers"]["celery"]
    queues = set()
    for workers in (celery, *celery["sets"]):
        command = workers["args"][-1].split()
        assert command[command.index("--queues") + 1] == workers["queue"]
        queues.add(workers["queue"])
    environment = dotenv_values(ROOT / "deploy" / "workers.env", interpolate=False)
    assert queues == {"default", environment["SHOETAGGER_GPU_QUEUE"]}


def test_the_user_of_the_image_has_a_name_and_owns_what_it_writes_to() -> None:
    """An empty volume takes its owner from the folder of the image that it is mounted over."""
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    [user] = re.findall(r"(?m)^USER (\d+):0$", dockerfile)
    [name] = re.findall(rf"useradd --uid {user} --gid 0 .*?(\w+) \\", dockerfile)
    [owned] = re.findall(rf"chown -R {name}:0 (.*)", dockerfile)
    services = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]
    mounted = {
        volume.split(":")[1]
        for service in services.values()
        if service["image"] == "shoetagger"
        for volume in service["volumes"]
    }
    assert mounted | {".git", ".dvc"} <= set(owned.split())


def test_the_services_of_compose_get_the_files_that_are_theirs() -> None:
    services = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]
    for name, service in services.items():
        for file in service.get("env_file", ()):
            assert (ROOT / "deploy" / file).is_file()
        if name.startswith("worker-"):
            assert service["env_file"] == ["workers.env"]
            assert "secrets:/etc/shoetagger" not in service["volumes"]


@pytest.mark.parametrize(
    ("program", "package"),
    [("redis-server", "redis-server"), ("initdb", "postgresql")],
)
def test_a_missing_program_is_named_with_the_package_that_has_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, program: str, package: str
) -> None:
    values, ports = write(settings), site.ServicePorts(1, 2, 3, 4, 5, 6)
    if program == "initdb":
        monkeypatch.setattr(services, "postgres_binaries", lambda: None)
    else:
        monkeypatch.setattr(services, "_postgres", lambda *_: None)
        monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(ServersError, match=f"apt-get install {package}$"):
        services.programs(settings, values, ports)


def test_a_folder_that_is_closed_to_postgresqls_user_is_refused(tmp_path: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    closed = tmp_path / "closed"
    (closed / "cluster").mkdir(parents=True)
    closed.chmod(0o700)
    with pytest.raises(ServersError, match=r"nobody, who may not enter .*SHOETAGGER_HOME"):
        services._refuse_unreachable(closed / "cluster", nobody)


def test_one_kind_of_servers_does_not_start_beside_the_other(settings: Settings) -> None:
    ourselves = psutil.Process()
    running = {"scheduler": (ourselves.pid, ourselves.create_time())}
    write_state(settings, Started(Ports(), running, cluster=True))
    with pytest.raises(ServersError, match="what `make cluster` started is running here"):
        up(settings, Ports(), lambda _: None)
    write_state(settings, Started(Ports(), running))
    with pytest.raises(ServersError, match="what `make up` started is running here"):
        cluster(settings, Ports(), lambda _: None)
