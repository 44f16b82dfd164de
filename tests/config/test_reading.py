from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from shoetagger.config.reading import read_yaml

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["params.yaml", "dvc.yaml", "data.dvc"])
def test_it_says_what_pyyaml_alone_does(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert read_yaml(text) == yaml.safe_load(text)


def test_a_fault_is_shown_with_its_line() -> None:
    with pytest.raises(yaml.YAMLError) as caught:
        read_yaml("tag:\n  shards: [4, 5\n  budget: 3\n")
    assert "line 3, column 9" in str(caught.value)
    assert "\n      budget: 3\n" in str(caught.value)


def test_a_key_that_is_there_twice_is_refused_with_its_line() -> None:
    with pytest.raises(yaml.YAMLError) as caught:
        read_yaml("tag:\n  shards: 4\n  budget: 3\n  shards: 5\n")
    assert "the key shards is there twice" in str(caught.value)
    assert "line 4, column 3" in str(caught.value)
    assert "\n      shards: 5\n" in str(caught.value)


def test_what_is_merged_into_a_mapping_may_be_overridden() -> None:
    text = "a: &a {x: 1, y: 2}\nb: &b {<<: *a, x: 3}\nc: [{<<: *b, y: 4}, *a]\n1: x\n'1': y\n"
    assert read_yaml(text) == yaml.safe_load(text)
    assert read_yaml(text)["c"] == [{"x": 3, "y": 4}, {"x": 1, "y": 2}]
