"""Label Studio's JSON, of projects in which people choose among labels for a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from pydantic import BaseModel, Field

from .labelled import (
    ExchangeError,
    LabelFile,
    Labelled,
    LabelledImage,
    Vocabulary,
    validated,
)

IMAGE = "image"  # of a task's data, and of the labelling interface that `interface` returns

# How Label Studio serves pictures below LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT.
LOCAL_FILES = "/data/local-files/?d=images/"


class _Result(BaseModel, frozen=True):
    type: str
    from_name: str = ""
    value: dict[str, Any] = Field(default_factory=dict)


class _Annotation(BaseModel, frozen=True):
    id: int | str = "?"
    result: list[_Result]
    was_cancelled: bool | None = False
    ground_truth: bool | None = False
    completed_by: int | str | dict[str, Any] | None = None
    created_at: str | None = None
    updated_at: str | None = None


class _Task(BaseModel, frozen=True):
    id: int | str = "?"
    data: dict[str, Any]
    annotations: list[_Annotation]


def read(document: object, name: str) -> LabelFile:
    """Read an export; `name` is the file's. Answers marked as ground truth count alone."""
    tasks = validated(
        list[_Task],
        document,
        name,
        f"{name} is no export of Label Studio: choose JSON there, not JSON-MIN",
    )
    answers: list[Labelled] = []
    questions: set[str] = set()
    faults: list[str] = []
    for task in tasks:
        file = _picture(task.data)
        if file is None:
            faults.append(f"{name}, task {task.id}: its data names no picture, or more than one")
            continue
        for annotation in _counting(task.annotations):
            chosen = [result for result in annotation.result if result.type == "choices"]
            questions |= {result.from_name for result in chosen}
            labels = [str(label) for r in chosen for label in r.value.get("choices", ())]
            at = (annotation.updated_at or annotation.created_at or "")[:10]
            place = f"task {task.id}, annotation {annotation.id}"
            by = _person(annotation.completed_by)
            answers.append(Labelled(file, frozenset(labels), place, by, at))
    if answers and not questions:
        faults.append(
            f"{name}: no result is of the type `choices`: only labels of whole pictures are read, "
            "no regions"
        )
    if faults:
        raise ExchangeError(faults)
    without = sum(not _counting(task.annotations) for task in tasks)
    return LabelFile(tuple(answers), questions=frozenset(questions), without=without)


def _counting(annotations: Sequence[_Annotation]) -> list[_Annotation]:
    """Return the annotations that are answers: those marked as ground truth, if any is."""
    given = [annotation for annotation in annotations if not annotation.was_cancelled]
    return [annotation for annotation in given if annotation.ground_truth] or given


def _picture(data: Mapping[str, Any]) -> str | None:
    """Return the picture of a task: the value called `image`, else the only text that is a path."""
    if isinstance(data.get(IMAGE), str):
        return str(data[IMAGE])
    paths = [value for value in data.values() if isinstance(value, str) and "/" in value]
    return paths[0] if len(paths) == 1 else None


def _person(completed_by: int | str | Mapping[str, Any] | None) -> str:
    if isinstance(completed_by, Mapping):
        return str(completed_by.get("email") or completed_by.get("id") or "")
    return "" if completed_by is None else f"annotator {completed_by}"


def write(images: Sequence[LabelledImage], _: Vocabulary, *, root: str = LOCAL_FILES) -> bytes:
    """Return tasks to import, answered as the label sheet says; `root` goes before every name."""
    tasks = [
        {
            "data": dict(image.extra) | {IMAGE: root + quote(image.name)},
            "annotations": [
                {
                    "result": [
                        {
                            "from_name": group,
                            "to_name": IMAGE,
                            "type": "choices",
                            "value": {"choices": list(tags)},
                        }
                        for group, tags in image.tags.items()
                        if tags
                    ]
                }
            ],
        }
        for image in images
    ]
    return (json.dumps(tasks, indent=1, ensure_ascii=False) + "\n").encode()


def interface(vocabulary: Vocabulary) -> bytes:
    """Return the labelling interface that the tasks of `write` go with, as Label Studio's XML."""
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name=IMAGE, value=f"${IMAGE}")
    for group, tags in vocabulary.groups.items():
        ElementTree.SubElement(view, "Header", value=vocabulary.titles.get(group, group))
        choices = ElementTree.SubElement(
            view, "Choices", name=group, toName=IMAGE, choice="multiple", showInline="true"
        )
        for tag in tags:
            # What is exported is the alias.
            ElementTree.SubElement(
                choices, "Choice", value=vocabulary.titles.get(tag, tag), alias=tag
            )
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode").encode() + b"\n"
