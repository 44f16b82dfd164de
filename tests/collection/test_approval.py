"""What the person who approves a collection is shown."""

from __future__ import annotations

from datetime import UTC, datetime

from shoetagger.collection.approval import body
from shoetagger.collection.gather import Checked, NoShoe
from shoetagger.collection.sheet_edits import Removed, SheetEdits, Taken

NOW = datetime(2026, 11, 25, 9, tzinfo=UTC)


def test_an_approval_shows_the_pictures_and_what_to_look_at() -> None:
    checked = [
        Checked(f"{n:064x}", (), frozenset({"red", "boot"}), (n,), "queue", "ann|bo", NOW)
        for n in range(50)
    ]
    taken = tuple(Taken(one, (f"{n}.png",), is_new=True) for n, one in enumerate(checked))
    removed = (Removed(NoShoe("f" * 64, (), 99, "kim"), ("face.png",)),)
    edits = SheetEdits(taken, removed, ("a.png is gone",), ("b.png: + red",), ("c.png: *both*",))
    shown = body(edits, answer_by=NOW, airflow="http://airflow/", title=str.upper)
    assert shown.startswith("**Answer by Wednesday, 25 November 2026, 09:00 UTC.** ")
    assert "50 checked pictures, 50 of them new, 1 removed:" in shown
    assert f"![a picture](http://airflow/pictures/thumbs/{checked[0].image_id}.jpg)" in shown
    assert "[BOOT, RED (ann\\|bo)](http://airflow/plugin/pictures/pictures/picture/" in shown
    assert shown.count("![a picture]") == 40
    assert "… and 11 more." in shown
    for line in ("- c.png: \\*both\\*", "- b.png: + red", "- a.png is gone"):
        assert line in shown.splitlines()
    assert shown.endswith(
        "[The pictures on the desk](http://airflow/plugin/pictures/pictures/collection)\n"
    )
