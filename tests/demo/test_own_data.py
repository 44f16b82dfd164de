"""The demo is about the drawn shoes: it leaves a project with data of its own alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoetagger.config.settings import Settings
from shoetagger.demo import __main__ as demo
from shoetagger.demo.airflow_api import DemoError
from shoetagger.ops.environment import Ports
from shoetagger.pipeline.dvc_files import data_revision

REPO = Path(__file__).parents[2]


def test_the_demo_is_about_the_data_of_a_fresh_clone() -> None:
    assert data_revision(REPO) == demo.SAMPLE


def test_a_project_with_data_of_its_own_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "up", lambda *_: pytest.fail("servers were started"))
    monkeypatch.setattr(demo, "pull_data", lambda _: pytest.fail("data was restored"))
    (tmp_path / "params.yaml").touch()
    (tmp_path / "data.dvc").write_text("outs:\n- {md5: abc.dir, path: data}\n")
    settings = Settings.from_environment(
        {"SHOETAGGER_REPO": str(tmp_path), "SHOETAGGER_HOME": str(tmp_path / "home")}
    )
    with pytest.raises(DemoError, match=r"data of its own.*`make up`.*trigger train_tag_models"):
        demo.demo(settings, Ports(1, 2), lambda _: None)
    assert not (tmp_path / "home" / "inbox").exists()
