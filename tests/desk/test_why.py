"""Heat maps on the desk: made by a process of its own, from file and version as they are."""

from __future__ import annotations

import base64
import io
import itertools
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import pytest
from helpers.bundles import write_bundle
from helpers.installation import install, make_live, put_pictures
from PIL import Image

from shoetagger.config.settings import Settings
from shoetagger.desk import why
from shoetagger.desk.gallery import Gallery
from shoetagger.desk.why import BusyError, Explainer, ExplanationError
from shoetagger.images.decode import image_id
from shoetagger.images.views import Transform
from shoetagger.orchestration.nightly import night
from shoetagger.tagging.explain import explain


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = install(tmp_path_factory.mktemp("why"))
    put_pictures(settings, 2)
    night(settings, "night")
    return settings


def ids(settings: Settings) -> list[str]:
    return [image_id(path.read_bytes()) for path in sorted(settings.inbox.iterdir())]


@pytest.mark.slow
def test_each_tag_has_a_map_and_the_score_that_the_night_gave(settings: Settings) -> None:
    gallery = Gallery(settings)
    card = gallery.card(ids(settings)[0])
    maps = gallery.why(card)
    stored = {group.name: {tag.name: tag.score for tag in group.tags} for group in card.groups}
    assert set(maps) == {"color", "style"}
    for group, found in maps.items():
        assert found.fault is None
        assert set(found.tags) == set(stored[group])
        for tag, one in found.tags.items():
            # The night's were computed in half precision, as this machine may do.
            assert one.score == pytest.approx(stored[group][tag], abs=0.03)
            with Image.open(io.BytesIO(one.png)) as image:
                assert (image.size, image.mode) == ((8, 8), "RGBA")
    assert gallery.why(card) is maps, "made once"
    gallery.close()


@pytest.mark.slow
def test_where_there_is_no_map_the_reason_is_given(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = make_live(settings, "detail", head_seed=5)
    night(settings, "retag")
    aside = (settings.bundles / digest).rename(settings.home / "aside")
    gallery = Gallery(settings)
    first, second = sorted(settings.inbox.iterdir())
    maps = gallery.why(gallery.card(image_id(first.read_bytes())))
    assert "not in this machine's cache" in (maps["detail"].fault or "")
    assert maps["color"].tags
    assert gallery.why(gallery.card(image_id(first.read_bytes()))) is maps, "made once for a page"
    monkeypatch.setattr(why, "_FAULT_SECONDS", 0.0)
    aside.rename(settings.bundles / digest)
    maps = gallery.why(gallery.card(image_id(first.read_bytes())))
    assert maps["detail"].fault is None, "what was mended is seen"
    card = gallery.card(image_id(second.read_bytes()))
    second.write_bytes(b"replaced")
    with pytest.raises(ExplanationError, match="no file in the inbox holds these bytes any more"):
        gallery.why(card)
    gallery.close()


def test_few_wait_for_a_map_and_others_are_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that waits is one that Airflow's other pages and tasks lack."""
    explainer = Explainer(Settings.from_environment({"SHOETAGGER_HOME": str(tmp_path)}))
    monkeypatch.setattr(Explainer, "_run", lambda *_: {})
    with ThreadPoolExecutor(20) as threads, explainer._one_at_a_time:
        asked = [threads.submit(explainer.explain, str(n), {}) for n in range(20)]
        refused = list(itertools.islice(as_completed(asked, timeout=20), 16))
    assert all(isinstance(future.exception(), BusyError) for future in refused)
    assert [future.result() for future in asked if future not in refused] == [{}] * 4


@pytest.mark.slow
def test_the_map_of_a_model_that_sees_pictures_cropped_lies_over_what_it_sees(
    settings: Settings,
) -> None:
    bundle = write_bundle(settings.bundles / "framed", transform=Transform(32, framing="shoe"))
    found = explain(settings, ids(settings)[0], {bundle.group: "framed"})[bundle.group]
    assert set(found["tags"]) == set(bundle.tags)
    with Image.open(io.BytesIO(base64.b64decode(found["view"]))) as seen:
        assert seen.size == (32, 32)


@pytest.mark.slow
def test_the_server_itself_imports_neither_torch_nor_pandas() -> None:
    program = """
import sys
import shoetagger.desk.app
loaded = {"torch", "torchvision", "pandas", "sklearn", "mlflow", "dvc"} & sys.modules.keys()
sys.exit(f"imported {loaded}" if loaded else 0)
"""
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=Path(__file__).parent
    )
    assert found.returncode == 0, found.stderr
