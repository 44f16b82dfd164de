"""COCO's JSON, with categories of whole pictures: annotations need no box."""

from __future__ import annotations

import json
from collections.abc import Sequence

from pydantic import BaseModel

from .labelled import (
    ExchangeError,
    LabelFile,
    Labelled,
    LabelledImage,
    Vocabulary,
    validated,
)


class _Image(BaseModel, frozen=True):
    id: int | str
    file_name: str


class _Category(BaseModel, frozen=True):
    id: int | str
    name: str


class _Annotation(BaseModel, frozen=True):
    id: int | str = "?"
    image_id: int | str
    category_id: int | str


class _Coco(BaseModel, frozen=True):
    images: list[_Image]
    categories: list[_Category]
    annotations: list[_Annotation]


def read(document: object, name: str) -> LabelFile:
    """Read a file; a picture has every category of which it has an annotation, with a box or not.

    All categories were asked of all pictures that are listed.
    """
    found = validated(
        _Coco, document, name, f"{name} is no COCO file with images, annotations and categories"
    )
    categories = {category.id: category.name for category in found.categories}
    labels: dict[int | str, set[str]] = {image.id: set() for image in found.images}
    faults: list[str] = []
    for annotation in found.annotations:
        where = f"{name}, annotation {annotation.id}"
        if annotation.category_id not in categories:
            faults.append(f"{where}: there is no category {annotation.category_id}: export again")
        elif annotation.image_id not in labels:
            faults.append(f"{where}: there is no image {annotation.image_id}: export again")
        else:
            labels[annotation.image_id].add(categories[annotation.category_id])
    if faults:
        raise ExchangeError(faults)
    answers = [
        Labelled(image.file_name, frozenset(labels[image.id]), f"image {image.id}")
        for image in found.images
    ]
    return LabelFile(tuple(answers), choices=frozenset(categories.values()))


def write(images: Sequence[LabelledImage], vocabulary: Vocabulary) -> bytes:
    """Return a file of all pictures; a category's supercategory is its group."""
    owner = {tag: group for group, tags in vocabulary.groups.items() for tag in tags}
    numbers = {tag: number for number, tag in enumerate(owner, start=1)}
    pairs = [
        (place, numbers[tag])
        for place, image in enumerate(images, start=1)
        for tags in image.tags.values()
        for tag in tags
    ]
    document = {
        "info": {"description": "labels of whole pictures, written by shoetagger"},
        "licenses": [],
        "images": [
            {"id": place, "file_name": i.name, "width": i.size[0], "height": i.size[1]}
            for place, i in enumerate(images, start=1)
        ],
        "annotations": [
            {"id": number, "image_id": image, "category_id": category}
            for number, (image, category) in enumerate(pairs, start=1)
        ],
        "categories": [
            {"id": numbers[tag], "name": tag, "supercategory": owner[tag]} for tag in owner
        ],
    }
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()
