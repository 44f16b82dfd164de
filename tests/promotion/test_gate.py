"""What passes, what does not, who is asked: the rule of params.yaml, in sentences."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from shoetagger.config.operations import Promote, Rule, WhenTagsChange
from shoetagger.config.params import load
from shoetagger.promotion.gate import approval_reason, check, first
from shoetagger.promotion.paired import PairedMetrics, ScorePair, TagDiff, TagMetrics

PROMOTE = replace(
    load(Path(__file__).parents[2] / "params.yaml").promote,
    rule=Rule(macro_f1_margin=0.02, tag_f1_margin=0.1, tag_min_positives=10, min_support=20),
)


def met(*tags: tuple[str, int, float, float], pictures: int = 40) -> PairedMetrics:
    """Return a comparison of tags: name, positives, F1 of challenger and champion."""
    rows = tuple(
        TagMetrics(name, n, ScorePair(challenger, champion, None))
        for name, n, challenger, champion in tags
    )
    macro = ScorePair(
        sum(row[2] for row in tags) / len(tags), sum(row[3] for row in tags) / len(tags), None
    )
    return PairedMetrics(pictures, macro, rows)


def changed(of: int, pictures: int) -> TagDiff:
    return TagDiff(pictures=pictures, changed=of)


def test_a_challenger_that_holds_the_rule_passes_and_the_reasons_say_by_what() -> None:
    verdict = check("version 3", met(("black", 12, 0.79, 0.8)), TagDiff(), PROMOTE)
    assert verdict.passes
    assert verdict.approval_reason is None
    assert verdict.reasons == (
        "macro F1 0.790 against 0.800 of version 3: not worse by more than 0.02",
        "none of the tags with at least 10 positives lost more than 0.1 of F1: black",
    )


@pytest.mark.parametrize(
    ("validation", "words"),
    [
        (met(("black", 12, 0.75, 0.8)), "macro F1 0.750 against 0.800: worse by more than 0.02"),
        (
            met(("black", 12, 0.6, 0.8), ("white", 12, 1.0, 0.8)),
            "F1 of black 0.600 against 0.800 on 12 positives: worse by more than 0.1",
        ),
        (met(("black", 12, 0.9, 0.8), pictures=19), "19 validation pictures decide nothing"),
        (
            PairedMetrics(40, None, (TagMetrics("black", 1, None),)),
            "no tag has the validation pictures",
        ),
    ],
)
def test_what_breaks_the_rule_is_stopped_in_a_sentence(
    validation: PairedMetrics, words: str
) -> None:
    verdict = check("version 3", validation, TagDiff(), PROMOTE)
    assert not verdict.passes
    assert verdict.approval_reason is None
    assert len(verdict.reasons) == 1
    assert words in verdict.reasons[0]
    assert "(promote." in verdict.reasons[0], "it names the parameter"


def test_what_is_lost_may_be_as_much_as_the_margin() -> None:
    rule = replace(PROMOTE.rule, macro_f1_margin=0.2, tag_f1_margin=0.2)
    promote = replace(PROMOTE, rule=rule)
    assert check("version 3", met(("black", 12, 0.7, 0.9)), TagDiff(), promote).passes
    assert not check("version 3", met(("black", 12, 0.6999, 0.9)), TagDiff(), promote).passes


def test_every_fault_is_told() -> None:
    verdict = check("version 3", met(("black", 12, 0.1, 0.8), ("white", 12, 0.1, 0.8)), TagDiff(),
                    PROMOTE)  # fmt: skip
    assert len(verdict.reasons) == 3


def test_a_tag_with_few_positives_is_not_held_to_its_own_margin() -> None:
    validation = met(("black", 12, 1.0, 0.8), ("rare", 9, 0.6, 0.8))
    assert check("version 3", validation, TagDiff(), PROMOTE).passes


def test_a_tag_that_is_not_found_stops_even_where_the_champion_does_not_find_it_either() -> None:
    verdict = check("version 3", met(("black", 12, 0.9, 0.8), ("heel", 11, 0.0, 0.0)), TagDiff(),
                    PROMOTE)  # fmt: skip
    assert not verdict.passes
    (reason,) = verdict.reasons
    assert "F1 of heel 0.000 (of the champion 0.000) on 11 positives: below 0.05" in reason
    assert "(promote.rule.tag_f1_floor)" in reason
    without = replace(PROMOTE, rule=replace(PROMOTE.rule, tag_f1_floor=0.0))
    validation = met(("black", 12, 0.9, 0.8), ("heel", 11, 0.0, 0.0))
    assert check("version 3", validation, TagDiff(), without).passes


def test_a_rare_tag_that_is_not_found_is_a_warning() -> None:
    validation = met(("black", 12, 0.9, 0.7), ("heel", 6, 0.0, 0.1))
    verdict = check("version 3", validation, TagDiff(), PROMOTE)
    assert verdict.passes
    (warning,) = verdict.warnings
    assert warning.startswith("F1 of heel is 0.000 on 6 positives")


def test_a_first_version_passes_and_what_it_does_not_find_is_a_warning() -> None:
    report = {
        "tags": {
            "black": {"f1": 0.8, "support": 12},
            "heel": {"f1": 0.0, "support": 11},
            "rare": {"f1": "not measurable", "support": 1},
        }
    }
    verdict = first(report, replace(PROMOTE, approval="always"))
    assert verdict.passes
    assert verdict.approval_reason is not None
    (warning,) = verdict.warnings
    assert warning.startswith("F1 of heel is 0.000 on 11 positives: the model does not find it")


def test_sentences_have_titles_of_tags() -> None:
    def titled(name: str) -> str:
        return {"heel": "high heel", "black": "jet black"}.get(name, name)

    passed = check("version 3", met(("black", 12, 0.79, 0.8)), TagDiff(), PROMOTE, titled)
    assert passed.reasons[1].endswith(" lost more than 0.1 of F1: jet black")
    stopped = check("version 3", met(("heel", 12, 0.0, 0.8)), TagDiff(), PROMOTE, titled)
    _, lost, below = stopped.reasons
    assert lost.startswith("F1 of high heel 0.000 against 0.800")
    assert below.startswith("F1 of high heel 0.000 (of the champion 0.800)")
    rare = check("version 3", met(("black", 12, 0.9, 0.7), ("heel", 6, 0.0, 0.1)), TagDiff(),
                 PROMOTE, titled)  # fmt: skip
    alone = first({"tags": {"heel": {"f1": 0.0, "support": 11}}}, PROMOTE, titled)
    for warning in (*rare.warnings, *alone.warnings):
        assert warning.startswith("F1 of high heel is 0.000")


def test_a_person_is_asked_as_the_parameters_say() -> None:
    threshold = replace(PROMOTE, approval=WhenTagsChange(0.02))
    assert approval_reason(replace(PROMOTE, approval="never"), changed(9, 9)) is None
    assert "every promotion" in str(
        approval_reason(replace(PROMOTE, approval="always"), changed(0, 9))
    )
    assert "every promotion" in str(approval_reason(replace(PROMOTE, approval="always"), None))
    assert approval_reason(threshold, changed(2, 100)) is None
    assert "3.0% of 100 sampled arrivals" in str(approval_reason(threshold, changed(3, 100)))
    assert "no tagged arrival" in str(approval_reason(threshold, changed(0, 0)))
    assert approval_reason(threshold, None) is None, "the first version has nothing to change"


def test_nobody_is_asked_about_what_does_not_pass() -> None:
    always: Promote = replace(PROMOTE, approval="always")
    assert (
        check("version 3", met(("black", 12, 0.1, 0.8)), TagDiff(), always).approval_reason is None
    )
    assert check("version 3", met(("black", 12, 0.9, 0.8)), TagDiff(), always).approval_reason
