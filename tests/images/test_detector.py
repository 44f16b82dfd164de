"""Where the ground is not plain, a detector finds what a picture is cropped to."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from helpers.detector import write_detector
from PIL import Image
from safetensors.numpy import save_file

from shoetagger.config.recipe import Augment
from shoetagger.images.box import Box
from shoetagger.images.decode import Limits
from shoetagger.images.detector import TENSOR, Detector, DetectorError
from shoetagger.images.framing import find_frame, shoe_box
from shoetagger.images.views import Transform, TransformError, tagging_view
from shoetagger.learning.training.images import ImageDataset

WEIGHTS = Path("weights.safetensors")
PERSON = 4  # one of the detector's other classes


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    return Detector.at(write_detector(tmp_path_factory.mktemp("detector") / "red.tflite"))


def picture(*boxes: tuple[int, int, int, int], size: tuple[int, int] = (400, 300)) -> Image.Image:
    """Draw red things in boxes (left, top, right, bottom) on a ground of noise."""
    noise = np.random.default_rng(0).integers(60, 200, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    for box in boxes:
        image.paste((180, 40, 40), box)
    return image


def test_the_area_is_that_of_the_shoe_with_a_margin(detector: Detector) -> None:
    thing = (120, 100, 220, 180)
    area = detector.area(picture(thing))
    assert area is not None
    # The margin, and the anchor of the outermost cell that shows something of it.
    near = 0.1 * 140 + 40
    for edge, found, outwards in zip(thing, area, (-1, -1, 1, 1), strict=True):
        assert 0 < outwards * (found - edge) <= near


def test_the_area_has_both_shoes_of_a_pair_and_ends_with_the_picture(detector: Detector) -> None:
    area = detector.area(picture((0, 120, 60, 180), (340, 100, 400, 160)))
    assert area is not None
    assert (area[0], area[2]) == (0, 400)
    assert 40 < area[1] < 100
    assert 180 < area[3] < 240


def test_a_picture_without_a_shoe_stays_whole(detector: Detector) -> None:
    image = picture()
    assert detector.area(image) is None
    assert find_frame(image, detector) is None


def test_other_things_are_not_shoes(tmp_path: Path) -> None:
    of_persons = Detector.at(write_detector(tmp_path / "person.tflite", seen=PERSON))
    assert of_persons.area(picture((120, 100, 220, 180))) is None


def test_the_detector_is_asked_only_where_the_border_is_not_plain(detector: Detector) -> None:
    uneven = picture((120, 100, 220, 180))
    assert find_frame(uneven) is None
    area = find_frame(uneven, detector)
    assert area is not None
    assert area == detector.area(uneven)
    assert (area[2] - area[0], area[3] - area[1]) < (200, 200)
    plain = Image.new("RGB", (400, 300), "white")
    plain.paste((20, 20, 20), (40, 40, 120, 120))
    plain.paste((180, 40, 40), (250, 150, 300, 200))
    box = shoe_box(plain)
    assert box is not None
    assert find_frame(plain, detector) == box != detector.area(plain)


def test_the_square_shows_what_the_detector_found(detector: Detector) -> None:
    def share_of_red(transform: Transform) -> float:
        view = tagging_view(picture((120, 100, 160, 140)), transform).astype(int)
        return float((view[..., 0] - view[..., 1] > 100).mean())

    whole = share_of_red(Transform(size=64, framing="shoe"))
    assert share_of_red(Transform(size=64, framing="shoe", detector=detector)) > 4 * whole


def test_threads_find_the_same_at_once(detector: Detector) -> None:
    images = [picture((x, 100, x + 80, 180)) for x in range(20, 300, 20)]
    alone = [detector.area(image) for image in images]
    found: list[list[object]] = [[] for _ in range(4)]
    threads = [
        threading.Thread(target=lambda into=into: into.extend(map(detector.area, images)))
        for into in found
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [alone] * 4


def test_a_transform_names_its_detector_by_digest_alone(detector: Detector) -> None:
    plain = Transform(framing="shoe")
    assert "detector" not in plain.as_dict(), "digests of bundles without one stay as they are"
    with_one = Transform(framing="shoe", detector=detector)
    assert with_one.as_dict() == plain.as_dict() | {"detector": detector.sha256}
    again = Transform.from_dict(with_one.as_dict(), WEIGHTS)
    assert again == with_one
    assert again.detector is not None
    assert again.detector.path == WEIGHTS
    with pytest.raises(TransformError, match=r"transform\.detector: 'red' is no SHA-256"):
        Transform.from_dict(plain.as_dict() | {"detector": "red"}, WEIGHTS)


# --- bad input ---


def test_a_missing_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DetectorError, match=r"images\.detector: .*shoe\.tflite cannot be read"):
        Detector.at(tmp_path / "shoe.tflite")


def test_a_file_that_is_no_network_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "page.tflite"
    file.write_text("<html>not found</html>")
    with pytest.raises(DetectorError, match=r"page\.tflite is no TFLite file that can be run"):
        Detector.at(file).check()


def test_a_network_of_another_kind_is_refused_with_both_shapes(tmp_path: Path) -> None:
    file = write_detector(tmp_path / "other.tflite", side=320)
    with pytest.raises(DetectorError, match=r"of \(1, 320, 320, 3\): .* of \(1, 300, 300, 3\)"):
        Detector.at(file).check()


def test_weights_that_lack_the_detector_or_have_another_are_refused(
    tmp_path: Path, detector: Detector
) -> None:
    file = tmp_path / WEIGHTS
    with pytest.raises(DetectorError, match=r"weights\.safetensors, which has the shoe detector"):
        Detector(detector.sha256, file).read()
    save_file({"other": np.zeros(3)}, file)
    with pytest.raises(DetectorError, match="has no shoe detector, which the bundle"):
        Detector(detector.sha256, file).read()
    save_file({TENSOR: np.zeros(3, np.uint8)}, file)
    with pytest.raises(DetectorError, match=f"not the shoe detector {detector.sha256[:12]}"):
        Detector(detector.sha256, file).read()
    save_file({TENSOR: np.frombuffer(detector.read(), np.uint8)}, file)
    Detector(detector.sha256, file).read()


def test_the_detector_is_asked_once_for_all_training_views_of_a_picture(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / "left.png", tmp_path / "right.png"]
    for path, box in zip(paths, [(120, 100, 220, 180), (260, 60, 360, 140)], strict=True):
        picture(box).save(path)
    transform = Transform(size=64, framing="shoe", detector=detector)
    augment = Augment(
        min_scale=0.7, flip=0.5, rotate=8.0, brightness=0.1, contrast=0.1, saturation=0.1, hue=0.0,
        erase=0.0, background=0.0,
    )  # fmt: skip

    def dataset() -> ImageDataset:
        return ImageDataset(paths, transform, Limits(10**7, 10**7), augment=augment)

    drawn = [(row, number) for number in range(3) for row in range(len(paths))]
    alone = [dataset().view(row, number) for row, number in drawn]
    asked: list[Image.Image] = []
    area = Detector.area

    def ask(detector: Detector, image: Image.Image) -> Box | None:
        asked.append(image)
        return area(detector, image)

    monkeypatch.setattr(Detector, "area", ask)
    together = dataset()
    for (row, number), view in zip(drawn, alone, strict=True):
        assert (together.view(row, number) == view).all()
    assert len(asked) == len(paths)
