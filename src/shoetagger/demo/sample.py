"""Draws the demo's shoes: pictures that differ in the 19 tags, and their label sheet.

`python -m shoetagger.demo.sample data` writes data/images/ and data/labels.csv.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..errors import ShoetaggerError
from .painter import draw_shoe
from .shapes import TAGS

# How many of 220 pictures have each combination of tags: about as in the article's label sheet.
_KINDS: dict[tuple[str, ...], int] = {
    ("boot", "above_ankle"): 36,
    ("boot", "heel", "above_ankle"): 34,
    ("boot", "below_ankle"): 8,
    ("heel", "below_ankle"): 40,
    ("sneaker", "below_ankle"): 19,
    ("sneaker", "above_ankle"): 13,
    ("sandal", "below_ankle"): 12,
    ("sandal", "heel", "below_ankle"): 11,
    ("flat", "below_ankle"): 27,
    ("loafer", "below_ankle"): 20,
}

_MAIN_COLORS: dict[tuple[str, ...], int] = {
    ("black",): 100,
    ("white",): 18,
    ("red",): 17,
    ("blue",): 19,
    ("tan",): 20,
    ("grey",): 20,
    ("brown",): 26,
}

_SECOND_COLORS: dict[tuple[str, ...], int] = {
    (): 168,
    ("black",): 14,
    ("white",): 10,
    ("red",): 4,
    ("blue",): 4,
    ("tan",): 7,
    ("grey",): 7,
    ("brown",): 6,
}

# How many of 220 have a finish, and the weight of each style; drawn in this order.
_FINISHES: tuple[tuple[str, int, dict[str, float]], ...] = (
    ("leather", 58, {"boot": 3, "loafer": 3, "sandal": 1.5, "heel": 1, "flat": 1, "sneaker": 0.6}),
    ("shiny", 42, {"heel": 2.5, "flat": 2, "sandal": 1.5, "loafer": 1, "boot": 1, "sneaker": 0.3}),
    ("patterned", 40, {"flat": 2, "sneaker": 2, "heel": 1.5, "loafer": 1, "boot": 1, "sandal": 1}),
    ("studded", 27, {"sandal": 1.5, "boot": 1, "heel": 1, "flat": 1, "loafer": 1, "sneaker": 0.7}),
)

_TOGETHER_FACTORS = {
    ("leather", "shiny"): 0.15,
    ("leather", "patterned"): 0.0,
    ("shiny", "patterned"): 0.4,
}
_SIZES = ((320, 320), (360, 300), (300, 300), (300, 360), (400, 300))
_QUALITY = 84

# File names as they come from the web: each of these kinds has broken some program.
_ODD_NAMES = (
    "-.jpg_640x640.jpg",
    "118-jcrew.w710.h473.2x.jpg",
    "Tamaris Stövlett - (4147390).jpg",
    "1-1-25121-29 311 Muscat - Tamaris - 4147390 - Women s Shoes.jpg",
    "new in, week 12.jpg",
    "women's size 38.jpg",
    "'quoted'.jpg",
    "zapato de niña.jpg",
    "ботинки 7.jpg",
    "靴 12.jpg",
    "au%2FWomens%2FShoes%2FHA5W_00-JET_1.jpg.jpg",
    "10272458_fpx.JPG",
    "shoe no. 5 [side] #2.jpeg",
    "a;b.jpg",
    "_104055634.jpg",
    "café crème & co, 50% off!.jpg",
    "Größe 41.jpg",
    "~pump 4.jpg",
    "1e5.jpg",
    "two  spaces.jpg",
)


def _draw_by_share(
    shares: dict[tuple[str, ...], int], count: int, rng: np.random.Generator
) -> list[tuple[str, ...]]:
    """Return `count` keys in random order, as often as their shares say."""
    bounds = np.cumsum(list(shares.values()))
    places = np.searchsorted(bounds, (np.arange(count) + 0.5) / count * bounds[-1], side="right")
    keys = list(shares)
    return [keys[place] for place in rng.permutation(places)]


def _draw_tags(count: int, rng: np.random.Generator) -> list[frozenset[str]]:
    """Return the tags of `count` pictures."""
    drawn = (
        _draw_by_share(shares, count, rng) for shares in (_KINDS, _MAIN_COLORS, _SECOND_COLORS)
    )
    shoes = [set(kind + main + second) for kind, main, second in zip(*drawn, strict=True)]
    for finish, number, weight_of in _FINISHES:
        weights = np.array(
            [
                max(weight_of[tag] for tag in tags if tag in weight_of)
                * np.prod([_TOGETHER_FACTORS.get((tag, finish), 1.0) for tag in tags])
                for tags in shoes
            ]
        )
        chosen = min(round(number * count / 220), int((weights > 0).sum()))
        for position in rng.choice(count, chosen, replace=False, p=weights / weights.sum()):
            shoes[position].add(finish)
    return [frozenset(tags) for tags in shoes]


def _names(count: int, rng: np.random.Generator) -> list[str]:
    """Return `count` different file names, up to a tenth of them odd ones."""
    names = list(_ODD_NAMES[: count // 10])
    for number in range(count - len(names)):
        digits = int(rng.integers(10**6, 10**7))
        plain = (
            f"shoe_{number:04d}.jpg",
            f"{digits}{number:03d}_fpx.jpg",
            f"IMG_{7000 + number}.jpg",
            f"shoes-{number:03d}-Side_large.jpg",
            f"61K{digits}._SY{number:03d}_.jpg",
        )
        names.append(plain[rng.integers(len(plain))])
    return names


def _jpeg(tags: frozenset[str], rng: np.random.Generator) -> bytes:
    sizes = _SIZES if "above_ankle" in tags else (*_SIZES[:3], _SIZES[4])
    image = draw_shoe(tags, rng, sizes[rng.integers(len(sizes))])
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return buffer.getvalue()


def write_samples(data: Path, count: int = 220, seed: int = 220) -> None:
    """Draw `count` labelled pictures: data/images/ and data/labels.csv, the same for a seed.

    Raises ShoetaggerError, and writes nothing, where either is there already.
    """
    sheet, images = data / "labels.csv", data / "images"
    for existing in (sheet, images):
        if existing.exists():
            raise ShoetaggerError(
                f"{existing} is there already: name an empty folder, or remove it"
            )
    rng = np.random.default_rng(seed)
    shoes = sorted(zip(_names(count, rng), _draw_tags(count, rng), strict=True))
    images.mkdir(parents=True)
    for name, tags in tqdm(shoes, desc="drawing shoes", unit="picture", disable=None):
        (images / name).write_bytes(_jpeg(tags, rng))
    with sheet.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("image_name", *TAGS))
        writer.writerows([name, *("1" if t in tags else "" for t in TAGS)] for name, tags in shoes)


def arrival_tags(count: int, seed: int) -> dict[str, frozenset[str]]:
    """Return what `write_arrivals` draws: file name -> the tags that the picture shows."""
    return _draw_arrivals(count, seed, np.random.default_rng((seed, 1)))


def _draw_arrivals(count: int, seed: int, rng: np.random.Generator) -> dict[str, frozenset[str]]:
    odd = (f"week {seed}, no. 1.jpg", f"l'été {seed}.jpg", f"Größe {seed}.JPG")
    return {
        odd[number // 5]
        if number % 5 == 4 and number < 15
        else f"arrival-{seed}-{number:03d}.jpg": tags
        for number, tags in enumerate(_draw_tags(count, rng))
    }


def write_arrivals(
    folder: Path, count: int, seed: int, *, with_bad: bool = False
) -> dict[Path, frozenset[str]]:
    """Draw `count` new pictures into `folder`, named after `seed`; return what each one shows.

    `with_bad` adds three files that are no pictures, which the result leaves out: a truncated
    JPEG, a text and an empty file. Equal files of an earlier call are written again.
    """
    rng = np.random.default_rng((seed, 1))
    folder.mkdir(parents=True, exist_ok=True)
    shown: dict[Path, frozenset[str]] = {}
    for name, tags in _draw_arrivals(count, seed, rng).items():
        (folder / name).write_bytes(_jpeg(tags, rng))
        shown[folder / name] = tags
    if with_bad:
        whole = _jpeg(frozenset({"red", "boot"}), rng)
        bad = {
            f"truncated-{seed}.jpg": whole[: len(whole) // 2],
            f"text-{seed}.jpg": b"This is no picture, whatever its name says.\n",
            f"empty-{seed}.jpg": b"",
        }
        for name, content in bad.items():
            (folder / name).write_bytes(content)
            # Old enough that nobody waits for the rest to arrive.
            an_hour_ago = time.time() - 3600
            os.utime(folder / name, (an_hour_ago, an_hour_ago))
    return shown


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the demo's data, or with --arrivals new pictures without labels."""
    parser = argparse.ArgumentParser(
        prog="python -m shoetagger.demo.sample", description=main.__doc__
    )
    parser.add_argument("folder", type=Path, help="data/, or with --arrivals an inbox")
    parser.add_argument("--count", type=int, default=220, help="pictures (default: 220)")
    parser.add_argument("--seed", type=int, default=220, help="another seed draws other shoes")
    parser.add_argument("--arrivals", action="store_true", help="pictures alone, no label sheet")
    parser.add_argument("--with-bad", action="store_true", help="with --arrivals: 3 broken files")
    options = parser.parse_args(arguments)
    try:
        if options.arrivals:
            write_arrivals(options.folder, options.count, options.seed, with_bad=options.with_bad)
        else:
            write_samples(options.folder, options.count, options.seed)
    except ShoetaggerError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
