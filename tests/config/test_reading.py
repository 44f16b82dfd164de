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
