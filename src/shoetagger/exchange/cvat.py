"""CVAT's XML, "CVAT for images 1.1", with tags of whole pictures."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

from .labelled import ExchangeError, LabelFile, Labelled, LabelledImage, Vocabulary


def read(data: bytes, name: str) -> LabelFile:
    """Read a file; a picture has every label of which it has a tag, or a shape.

    All labels of the task, or of the project, were asked of all pictures that are listed.
    """
    try:
        root = ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        raise ExchangeError([f"{name} is no XML that can be read: {error}"]) from None
    if root.tag != "annotations" or root.find("track") is not None:
        raise ExchangeError(
            [f"{name}: not CVAT's XML of pictures: export the task as `CVAT for images 1.1`"]
        )
    asked = {found.text or "" for found in root.iterfind("./meta/*/labels/label/name")}
    answers: list[Labelled] = []
    for image in root.iterfind("image"):
        labels = [label for shape in image if (label := shape.get("label")) is not None]
        place = f"image {image.get('id')}"
        answers.append(Labelled(image.get("name") or "", frozenset(labels), place))
    used = {label for answer in answers for label in answer.labels}
    return LabelFile(tuple(answers), choices=frozenset(asked | used))


def write(images: Sequence[LabelledImage], vocabulary: Vocabulary) -> bytes:
    """Return a file of all pictures; a task into which it is loaded has to have the same labels."""
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    task = ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task")
    ElementTree.SubElement(task, "size").text = str(len(images))
    ElementTree.SubElement(task, "mode").text = "annotation"
    labels = ElementTree.SubElement(task, "labels")
    for tags in vocabulary.groups.values():
        for tag in tags:
            label = ElementTree.SubElement(labels, "label")
            ElementTree.SubElement(label, "name").text = tag
            ElementTree.SubElement(label, "type").text = "tag"
            ElementTree.SubElement(label, "attributes")
    for place, image in enumerate(images):
        width, height = map(str, image.size)
        shown = ElementTree.SubElement(
            root, "image", id=str(place), name=image.name, width=width, height=height
        )
        for tags in image.tags.values():
            for tag in tags:
                ElementTree.SubElement(shown, "tag", label=tag, source="manual")
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'.encode()
