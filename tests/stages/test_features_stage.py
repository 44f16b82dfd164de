"""The stage `features` says how much there is to do, and for how long, before it does it."""

from __future__ import annotations

import pytest

from shoetagger.learning.training.feature_files import Work
from shoetagger.stages import features


@pytest.mark.parametrize(
    ("seconds", "said"), [(12.4, "12 s"), (100.0, "2 min"), (5940.0, "99 min"), (14_400.0, "4.0 h")]
)
def test_what_twenty_thousand_pictures_take_is_said(
    seconds: float, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    features.tell(Work(pictures=20_000, views=260_000, kept=650, seconds=seconds))
    assert capsys.readouterr().out == (
        "260,000 views of 20,000 pictures, 650 of them kept from earlier runs; "
        f"the others take about {said} more\n"
    )
