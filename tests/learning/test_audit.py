"""The audit names doubtful cells, contradictory rows and near-duplicates."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from shoetagger.cli.app import app
from shoetagger.config.params import Params, load
from shoetagger.config.recipe import Group
from shoetagger.learning.audit.finding import AuditError, Finding
from shoetagger.learning.audit.findings import findings, thumbnails
from shoetagger.learning.audit.page import audit_page, audit_sections

ROOT = Path(__file__).parents[2]
TAGS = {"color": ("black", "white"), "detail": ("above_ankle", "below_ankle")}
NAMES = [f"shoe {i:02d}.jpg" for i in range(20)]


@pytest.fixture
def params() -> Params:
    loaded = load(ROOT / "params.yaml")
    groups = {name: Group(tags) for name, tags in TAGS.items()}
    return dataclasses.replace(loaded, groups=groups)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Twenty pictures of noise; odd ones are white and low, even ones black and high."""
    (tmp_path / "data" / "images").mkdir(parents=True)
    rng = np.random.default_rng(1)
    for name in NAMES:
        noise = rng.integers(0, 256, size=(6, 8, 3), dtype=np.uint8)
        image = Image.fromarray(noise).resize((64, 48), Image.Resampling.BICUBIC)
        image.save(tmp_path / "data" / "images" / name)
    odd = np.arange(20) % 2
    for group, tags in TAGS.items():
        truth = pd.DataFrame({tags[0]: 1 - odd, tags[1]: odd})
        table = pd.DataFrame(
            {
                "image_name": NAMES,
                "image_id": [f"{i:064x}" for i in range(20)],
                "side": ["validation" if i >= 16 else "train" for i in range(20)],
                "fold": np.arange(20) % 5,
            }
        )
        write(tmp_path / "split" / f"{group}.csv", pd.concat([table, truth], axis=1))
        scores = table[["image_name", "fold"]].join(truth * 0.8 + 0.1)
        held = (truth * 0.8 + 0.1).add_prefix("score ").assign(part="validation")
        predictions = table[["image_name"]].join(held)[table["side"] == "validation"]
        write(tmp_path / "predictions" / f"{group}.csv", predictions)
        write(tmp_path / "crossval" / f"{group}.csv", scores[table["side"] == "train"])
    return tmp_path


def write(path: Path, table: pd.DataFrame) -> None:
    path.parent.mkdir(exist_ok=True)
    table.to_csv(path, index=False)


def change(path: Path, name: str, **cells: object) -> None:
    table = pd.read_csv(path)
    for column, value in cells.items():
        table.loc[table["image_name"] == name, column] = value
    table.to_csv(path, index=False)


def audit(params: Params, project: Path) -> list[Finding]:
    tables = [project / folder for folder in ("split", "crossval", "predictions")]
    return findings(params, *tables, project / "data" / "images")


def test_nothing_is_found_where_sheet_and_scores_agree(params: Params, project: Path) -> None:
    # Scores that are alike are all as high as is usual: give each class some spread.
    for group, tags in TAGS.items():
        path = project / "crossval" / f"{group}.csv"
        table = pd.read_csv(path)
        table[list(tags)] += np.random.default_rng(2).normal(0, 0.03, (len(table), 2))
        table.to_csv(path, index=False)
    assert audit(params, project) == []


def test_cells_that_scores_contradict_come_ranked_by_tag(params: Params, project: Path) -> None:
    scores = project / "crossval" / "color.csv"
    change(scores, NAMES[0], black=0.02, white=0.99)  # ticked black, scored white
    change(scores, NAMES[3], black=0.93)  # not ticked black, scored black
    found = [f for f in audit(params, project) if f.kind == "score"]
    black = [(f.image_name, f.sheet, f.score, f.message) for f in found if f.tag == "black"]
    assert black[:2] == [
        (NAMES[0], "1", 0.02, "looks like no black"),
        (NAMES[3], "0", 0.93, "looks like black"),
    ]
    assert next(f for f in found if f.tag == "white").image_name == NAMES[0]


def test_repeats_of_the_cross_validation_count_by_their_mean(params: Params, project: Path) -> None:
    path = project / "crossval" / "color.csv"
    first = pd.read_csv(path).assign(repeat=0)
    # Another repeat has other folds, which the split table does not know.
    second = first.assign(repeat=1, fold=(first["fold"] + 1) % 5)
    first.loc[first["image_name"] == NAMES[0], "black"] = 0.02  # ticked
    second.loc[second["image_name"] == NAMES[0], "black"] = 0.1
    pd.concat([first, second]).to_csv(path, index=False)
    found = [f for f in audit(params, project) if f.kind == "score" and f.tag == "black"]
    assert (found[0].image_name, found[0].score) == (NAMES[0], 0.06)
    assert [f.image_name for f in found].count(NAMES[0]) == 1


def test_cells_of_the_validation_side_are_judged_by_the_model_that_has_not_seen_them(
    params: Params, project: Path
) -> None:
    predictions = project / "predictions" / "color.csv"
    change(predictions, NAMES[18], **{"score black": 0.03})  # ticked black, scored otherwise
    found = [f for f in audit(params, project) if f.kind == "score" and f.tag == "black"]
    assert (found[0].image_name, found[0].score) == (NAMES[18], 0.03)
    table = pd.read_csv(predictions)
    for stale in (table[1:], table.drop(columns="score white")):
        stale.to_csv(predictions, index=False)
        with pytest.raises(AuditError, match=r"predictions/color\.csv has the scores of another"):
            audit(params, project)
    predictions.unlink()
    with pytest.raises(AuditError, match=r"predictions/color\.csv is missing: run `dvc repro`"):
        audit(params, project)


def test_at_most_as_many_cells_per_tag_as_params_say(params: Params, project: Path) -> None:
    few = dataclasses.replace(params, audit=dataclasses.replace(params.audit, per_tag=1))
    for name, score in zip(NAMES[1:6:2], (0.93, 0.97, 0.95), strict=True):
        change(project / "crossval" / "color.csv", name, black=score)
    assert [f.image_name for f in audit(few, project) if f.tag == "black"] == [NAMES[3]]


def test_tags_that_exclude_each_other_and_rows_without_a_tag(params: Params, project: Path) -> None:
    detail = project / "split" / "detail.csv"
    change(detail, NAMES[4], below_ankle=1)
    change(detail, NAMES[5], below_ankle=0)
    found = {(f.kind, f.image_name, f.tag) for f in audit(params, project) if f.kind != "score"}
    assert found == {
        ("exclusive", NAMES[4], "above_ankle, below_ankle"),
        ("untagged", NAMES[5], ""),
    }


def test_a_group_of_one_tag_may_say_no(params: Params, project: Path) -> None:
    alone = dataclasses.replace(params, groups={"color": Group(("black",))})
    unticked = dataclasses.replace(alone, audit=dataclasses.replace(alone.audit, exclusive=()))
    assert [f for f in audit(unticked, project) if f.kind == "untagged"] == []


def test_tables_that_no_longer_fit_are_refused_by_name(params: Params, project: Path) -> None:
    tags = {"color": Group(("black", "white", "pink")), "detail": params.group("detail")}
    with pytest.raises(AuditError, match=r"color\.csv was made before .* 'pink': run `dvc repro`"):
        audit(dataclasses.replace(params, groups=tags), project)
    scores = project / "crossval" / "detail.csv"
    table = pd.read_csv(scores)
    for stale in (table[table["image_name"] != NAMES[3]], table.assign(fold=1 - table["fold"])):
        stale.to_csv(scores, index=False)
        with pytest.raises(AuditError, match=r"detail\.csv has the scores of another split"):
            audit(params, project)
    table.to_csv(scores, index=False)
    (project / "data" / "images" / NAMES[7]).unlink()
    with pytest.raises(AuditError, match=r"shoe 07\.jpg is gone since the split was made"):
        audit(params, project)


def test_a_near_duplicate_is_across_the_split_where_it_is_for_one_group(
    params: Params, project: Path
) -> None:
    images = project / "data" / "images"
    (images / NAMES[9]).write_bytes((images / NAMES[2]).read_bytes())
    change(project / "split" / "detail.csv", NAMES[9], side="validation")
    scores = project / "crossval" / "detail.csv"
    table = pd.read_csv(scores)
    table[table["image_name"] != NAMES[9]].to_csv(scores, index=False)
    predictions = project / "predictions" / "detail.csv"
    held = pd.read_csv(predictions)
    moved = held[:1].assign(image_name=NAMES[9])
    pd.concat([held, moved]).to_csv(predictions, index=False)
    found = [f for f in audit(params, project) if f.kind == "near_duplicate"]
    assert [f.message for f in found] == ["nearly the same picture on both sides of the split"]


def test_near_duplicates_are_found_across_the_split_first_also_mirrored_and_saved_again(
    params: Params, project: Path
) -> None:
    images = project / "data" / "images"
    with Image.open(images / NAMES[2]) as image:
        image.resize((96, 72)).save(images / NAMES[9], quality=60)  # both on the training side
        mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        mirrored.save(images / NAMES[18])  # on the validation side
    duplicates = [f for f in audit(params, project) if f.kind == "near_duplicate"]
    pairs = [(f.image_name, f.other, "both sides" in f.message) for f in duplicates]
    assert pairs == [
        (NAMES[2], NAMES[18], True),
        (NAMES[9], NAMES[18], True),
        (NAMES[2], NAMES[9], False),
    ]


def test_what_is_missing_is_named_with_the_next_step(params: Params, project: Path) -> None:
    odd = dataclasses.replace(params.audit, exclusive=(("above_ankle", "belowankle"),))
    with pytest.raises(AuditError, match=r"audit\.exclusive\[0\] names belowankle"):
        audit(dataclasses.replace(params, audit=odd), project)
    header = (project / "crossval" / "color.csv").read_text().splitlines()[0]
    (project / "crossval" / "color.csv").write_text(header + "\n")
    with pytest.raises(AuditError, match=r"split\.folds"):
        audit(params, project)
    (project / "crossval" / "color.csv").unlink()
    with pytest.raises(AuditError, match=r"color\.csv is missing: run `dvc repro`"):
        audit(params, project)


def test_the_command_writes_a_table_and_a_page_that_escape_names(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = "=<script>alert(1)<script>.jpg"
    images = project / "data" / "images"
    (images / NAMES[0]).rename(images / odd)
    for table in ("split", "crossval"):
        for group in TAGS:
            path = project / table / f"{group}.csv"
            path.write_text(path.read_text().replace(NAMES[0], odd))
    change(project / "crossval" / "color.csv", odd, black=0.02)
    document = yaml.safe_load((ROOT / "params.yaml").read_text())
    document["groups"] = {name: {"tags": list(tags)} for name, tags in TAGS.items()}
    (project / "params.yaml").write_text(yaml.safe_dump(document))
    header = ["image_name", *TAGS["color"], *TAGS["detail"], "article", "price"]
    sheet = [",".join(header), f"{odd},1,,1,,<b>4711,9.90", f"{NAMES[1]},,1,,1,,"]
    (project / "data" / "labels.csv").write_text("\n".join(sheet) + "\n")
    monkeypatch.setenv("SHOETAGGER_REPO", str(project))
    done = CliRunner().invoke(app, ["audit", str(project / "out")], catch_exceptions=False)
    assert "audit.html" in done.output
    page = (project / "out" / "audit.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "data:image/jpeg;base64," in page
    assert "article: &lt;b&gt;4711 · price: 9.90" in page
    table = (project / "out" / "audit.csv").read_text()
    assert f"'{odd}" in table
    assert "article: <b>4711 · price: 9.90" in table


def test_a_page_shows_the_first_of_each_section_and_says_how_many_there_are() -> None:
    duplicates = [
        Finding("near_duplicate", "", "", NAMES[i], "", 0.99, "alike", NAMES[i + 1])
        for i in range(9)
    ]
    cells = [Finding("score", "color", "black", NAMES[0], "1", 0.02, "looks like no black")]
    sections = audit_sections([*cells, *duplicates], 2)
    shown = [(s.title, [f.image_name for f in s.findings], s.count) for s in sections]
    assert shown == [("color: black", [NAMES[0]], 1), ("Near-duplicates", NAMES[:2], 9)]
    page = audit_page(sections, dict.fromkeys(NAMES, b""))
    assert "10 findings" in page
    assert page.count("The first 2 of 9 findings") == page.count("The first ") == 1
    assert page.count("<figure>") == 3


def test_thumbnails_are_made_once_for_each_picture_named(params: Params, project: Path) -> None:
    found = [
        Finding("near_duplicate", "", "", NAMES[1], "", 0.99, "alike", NAMES[2]),
        Finding("untagged", "color", "", NAMES[1], "", None, "none"),
    ]
    made = thumbnails(found, project / "data" / "images", params)
    assert set(made) == {NAMES[1], NAMES[2]}
    assert all(jpeg.startswith(b"\xff\xd8") for jpeg in made.values())
