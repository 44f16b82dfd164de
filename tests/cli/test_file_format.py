"""A file is written in the format that its name says."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoetagger.cli.exchange import _SUFFIXES, Format
from shoetagger.cli.file_format import format_for
from shoetagger.errors import ShoetaggerError


@pytest.mark.parametrize(
    ("name", "named", "expected"),
    [
        ("shoes.xml", None, Format.CVAT),
        ("SHOES.CSV", None, Format.CSV),
        ("shoes.json", Format.COCO, Format.COCO),
        ("shoes.txt", Format.CVAT, Format.CVAT),
        ("/dev/stdout", None, Format.CSV),
    ],
)
def test_the_suffix_says_the_format_where_none_is_named(
    name: str, named: Format | None, expected: Format
) -> None:
    assert format_for(Path(name), named, _SUFFIXES) is expected


@pytest.mark.parametrize(
    ("name", "named", "message"),
    [
        ("shoes.csv", Format.CVAT, r"--format cvat does not go with .*: call it shoes\.xml, or"),
        ("shoes.json", None, r"shoes\.json does not say .* --format label-studio, coco$"),
        ("shoes.txt", None, r"does not say .* --format csv, label-studio, coco, cvat$"),
    ],
)
def test_a_name_that_contradicts_the_format_or_does_not_tell_it_is_refused(
    name: str, named: Format | None, message: str
) -> None:
    with pytest.raises(ShoetaggerError, match=message):
        format_for(Path(name), named, _SUFFIXES)
