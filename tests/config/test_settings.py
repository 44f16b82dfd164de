from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy

from shoetagger.config.places import Bucket
from shoetagger.config.settings import Settings, find_repo, sqlite_url
from shoetagger.errors import ShoetaggerError


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "a repo"
    folder.mkdir()
    (folder / "params.yaml").touch()
    (folder / "dvc.yaml").touch()
    monkeypatch.chdir(folder)
    return folder


def test_every_place_has_a_default_inside_the_repo(repo: Path) -> None:
    settings = Settings.from_environment({})
    assert settings.repo == repo
    assert settings.home == repo / ".shoetagger"
    assert settings.inbox == settings.home / "inbox"
    assert settings.store_url == f"sqlite:///{settings.home}/store.db"
    assert settings.tracking_uri == f"sqlite:///{settings.home}/mlflow/mlflow.db"
    assert settings.device == "auto"
    for place in (
        settings.artifacts,
        settings.outbox,
        settings.checkouts,
        settings.bundles,
        settings.published,
    ):
        assert place.is_relative_to(settings.home)
    assert settings.params_file.is_file()


def test_an_empty_variable_is_as_good_as_none(repo: Path) -> None:
    names = ("REPO", "HOME", "INBOX", "STORE_URL", "DEVICE")
    empty = {f"SHOETAGGER_{name}": "" for name in names} | {"MLFLOW_TRACKING_URI": ""}
    assert Settings.from_environment(empty) == Settings.from_environment({})
    assert Settings.from_environment({}).repo == repo


def test_the_environment_names_other_places(repo: Path, tmp_path: Path) -> None:
    settings = Settings.from_environment(
        {
            "SHOETAGGER_HOME": "state",
            "SHOETAGGER_INBOX": str(tmp_path / "in"),
            "SHOETAGGER_STORE_URL": "postgresql+psycopg://host/store",
            "MLFLOW_TRACKING_URI": "http://127.0.0.1:5000",
            "SHOETAGGER_DEVICE": "cuda:1",
        }
    )
    assert settings.home == repo / "state"
    assert settings.inbox == tmp_path / "in"
    assert settings.store_url == "postgresql+psycopg://host/store"
    assert settings.tracking_uri == "http://127.0.0.1:5000"
    assert settings.device == "cuda:1"


def test_settings_reach_another_process_through_its_environment(repo: Path, tmp_path: Path) -> None:
    named = {
        "SHOETAGGER_REPO": str(repo),
        "SHOETAGGER_HOME": str(tmp_path / "state"),
        "SHOETAGGER_INBOX": str(tmp_path / "in"),
        "SHOETAGGER_STORE_URL": "postgresql+psycopg://me:secret@host/store",
        "SHOETAGGER_DEVICE": "cuda:1",
        "SHOETAGGER_NOTIFY_URL": "https://host/path",
        "SHOETAGGER_MLFLOW_URL": "https://mlflow.example",
        "SHOETAGGER_GPU_QUEUE": "gpu",
        "SHOETAGGER_PUBLISHED": "s3://bucket/shop",
        "SHOETAGGER_SHARE_RESULTS": "no",
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:5000",
    }
    settings = Settings.from_environment(named)
    assert settings.as_environment() == named
    for chosen in (settings, Settings.from_environment({"SHOETAGGER_REPO": str(repo)})):
        assert Settings.from_environment(named | chosen.as_environment()) == chosen


def test_whether_results_are_shared_is_yes_or_no(repo: Path) -> None:
    named = {"SHOETAGGER_REPO": str(repo), "SHOETAGGER_SHARE_RESULTS": "false"}
    with pytest.raises(ShoetaggerError, match="SHARE_RESULTS='false' is no answer: use yes or no"):
        Settings.from_environment(named)


def test_an_inbox_in_a_bucket_reaches_another_process_as_it_is(repo: Path) -> None:
    settings = Settings.from_environment(
        {"SHOETAGGER_REPO": str(repo), "SHOETAGGER_INBOX": "s3://pictures/new shoes/"}
    )
    assert settings.inbox == Bucket("s3", "pictures", "new shoes")
    assert Settings.from_environment(settings.as_environment()) == settings


@pytest.mark.usefixtures("repo")
@pytest.mark.parametrize(
    ("inbox", "published"),
    [
        ("/shoes", "/shoes/published"),
        ("/shoes", "/shoes/"),
        ("/shoes/", "/elsewhere/../shoes/a/b"),
        ("s3://bucket", "s3://bucket/tags"),
        ("s3://bucket/shoes", "s3://bucket/shoes/tags/"),
    ],
)
def test_a_published_folder_in_the_inbox_is_refused(inbox: str, published: str) -> None:
    named = {"SHOETAGGER_INBOX": inbox, "SHOETAGGER_PUBLISHED": published}
    with pytest.raises(ShoetaggerError, match=r"in the inbox .*/(shoes|bucket): set SHOETAGGER_P"):
        Settings.from_environment(named)


@pytest.mark.usefixtures("repo")
@pytest.mark.parametrize(
    ("inbox", "published"),
    [
        ("/shoes", "/shoes published"),
        ("/shoes/new", "/shoes"),
        ("/shoes", "/shoes/.published"),
        ("/shoes", "/shoes/state/published"),
        ("s3://bucket/shoes", "s3://bucket/shoes and tags"),
        ("s3://bucket/shoes", "s3://other/shoes/tags"),
        ("s3://bucket", "/bucket/tags"),
    ],
)
def test_a_published_folder_that_no_listing_of_the_inbox_shows_is_taken(
    inbox: str, published: str
) -> None:
    named = {"SHOETAGGER_INBOX": inbox, "SHOETAGGER_PUBLISHED": published}
    settings = Settings.from_environment({"SHOETAGGER_HOME": "/shoes/state", **named})
    assert str(settings.published) == published


@pytest.mark.usefixtures("repo")
def test_where_people_open_mlflow_is_an_address_for_browsers() -> None:
    with pytest.raises(ShoetaggerError, match=r"MLFLOW_URL='mlflow.example' is no address"):
        Settings.from_environment({"SHOETAGGER_MLFLOW_URL": "mlflow.example"})
    named = Settings.from_environment({"SHOETAGGER_MLFLOW_URL": "https://me:pass@mlflow.example"})
    assert named.mlflow_url == "https://mlflow.example"


@pytest.mark.usefixtures("repo")
@pytest.mark.parametrize(
    "address",
    [
        "http://host:50x0",
        "http://me:sec/ret@host",
        "http://[x",
    ],
)
def test_an_address_of_mlflow_that_is_none_is_refused_without_its_secret(address: str) -> None:
    with pytest.raises(ShoetaggerError, match="MLFLOW_TRACKING_URI is no address") as caught:
        Settings.from_environment({"MLFLOW_TRACKING_URI": address})
    assert "sec" not in str(caught.value)


@pytest.mark.parametrize("address", ["postgresql://me:a/b#c@host/db", "databricks://mine:shop"])
def test_an_address_of_mlflow_that_others_read_is_left_to_them(address: str) -> None:
    assert Settings.from_environment({"MLFLOW_TRACKING_URI": address}).tracking_uri == address


def test_a_device_that_is_none_is_refused_by_name(repo: Path) -> None:
    assert repo.is_dir()
    with pytest.raises(ShoetaggerError, match="SHOETAGGER_DEVICE='gpu' is not a device: use auto"):
        Settings.from_environment({"SHOETAGGER_DEVICE": "gpu"})


def test_the_repo_is_found_from_its_subfolders(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repo / "data" / "images").mkdir(parents=True)
    monkeypatch.chdir(repo / "data" / "images")
    assert find_repo(None) == repo


def test_a_repo_named_in_the_environment_comes_first_and_must_be_one(
    repo: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(ShoetaggerError, match=r"SHOETAGGER_REPO=.*other holds no params\.yaml"):
        Settings.from_environment({"SHOETAGGER_REPO": str(other)})
    (other / "params.yaml").touch()
    assert Settings.from_environment({"SHOETAGGER_REPO": str(other)}).repo == other
    assert repo != other


def test_a_relative_database_is_the_same_for_every_process(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repo)
    given = {"SHOETAGGER_STORE_URL": "sqlite:///mine.db", "MLFLOW_TRACKING_URI": "http://there"}
    settings = Settings.from_environment(given)
    assert settings.store_url == f"sqlite:///{repo}/mine.db"
    assert settings.tracking_uri == "http://there"


def test_signs_in_a_path_do_not_change_where_a_database_lies(tmp_path: Path) -> None:
    folder = tmp_path / "100%25 a?b"
    folder.mkdir()
    engine = sqlalchemy.create_engine(sqlite_url(folder / "x.db"))
    with engine.connect():
        pass
    engine.dispose()
    assert (folder / "x.db").exists()
