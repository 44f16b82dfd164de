"""Metrics are named after tags, and tags are any words; MLflow takes every name that we give it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_metric_name

from shoetagger.tracking.names import metric_name


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("above_ankle", "f1_above_ankle"),
        ("steel toe (S3)", "f1_steel toe _x0028_S3_x0029_"),
        ("größe 4.5 über-weit", "f1_größe 4.5 über-weit"),
        ("a/../b", "f1_a_x002F_.._x002F_b"),
        ("10:30", "f1_10_x003A_30"),
        ("👟", "f1__x1F45F_"),
        ("_x0028_", "f1__x005F_x0028_"),
    ],
)
def test_only_what_mlflow_refuses_is_escaped(tag: str, expected: str) -> None:
    assert metric_name(f"f1_{tag}") == expected


@given(
    tag=st.text(
        st.characters(exclude_categories=["Cs"]) | st.sampled_from("_x0028/:."),
        min_size=1,
        max_size=30,
    )
)
def test_every_name_is_taken_and_can_be_read_back(tag: str) -> None:
    mapped = metric_name("validation", "f1", tag)
    _validate_metric_name(mapped)
    section, _, mapped = mapped.rpartition("/")
    assert section == "validation/f1"
    read = re.sub(r"_x([0-9A-F]{4,6})_", lambda found: chr(int(found[1], 16)), mapped)
    assert read == tag


def test_long_names_fit_and_stay_different() -> None:
    mapped = {metric_name(f"f1_{'(' * 100}{end}") for end in "ab"}
    assert len(mapped) == 2
    assert {len(name) for name in mapped} == {250}
