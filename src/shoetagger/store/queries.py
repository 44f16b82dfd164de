"""The pieces that the Store's transactions are made of: each takes the connection of one."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from .rows import (
    BundleVersion,
    FileRow,
    GroupCounts,
    GroupTags,
    Move,
    Prediction,
    RejectedFile,
    RunRow,
    StoreError,
    Tagged,
    chain_of,
)
from .tables import (
    UtcTime,
    corrections,
    coverage,
    days,
    files,
    forgotten,
    images,
    ledger,
    predictions,
    versions,
)

if TYPE_CHECKING:
    from shoetagger.inbox import Arrival

PAGE = 1000  # rows a query, so that neither memory nor a transaction grows with the store
SCORE_DIGITS = 6

# Written out, not bound: only so can a database see that a partial index answers the question.
NEW = files.c.state == sa.literal_column("'new'")
TAGGED = files.c.state == sa.literal_column("'tagged'")
REJECTED = files.c.state == sa.literal_column("'rejected'")
GONE = files.c.state == sa.literal_column("'gone'")
NOT_REJECTED = files.c.state != sa.literal_column("'rejected'")

FORGOTTEN = "forgotten: what was known of it is erased; `shoetagger retry` with its name asks anew"

NOTHING_SAID = GroupTags((), {}, None, None, stale=False, corrected=False)

_T = TypeVar("_T")


def pages(values: Iterable[_T], size: int = PAGE) -> Iterator[list[_T]]:
    """Cut `values` into lists of at most `size`."""
    rest = iter(values)
    while page := list(islice(rest, size)):
        yield page


def day_of(moment: datetime) -> str:
    """The UTC day a moment lies in, as YYYY-MM-DD."""
    return moment.astimezone(UTC).date().isoformat()


Place = tuple[datetime, str]  # first_seen and id of a row, by which pages are ordered


def day_bounds(day: str | None) -> tuple[Place | None, Place | None]:
    """The places just before the first and just after the last row of a day; None without one."""
    if day is None:
        return None, None
    try:
        begin = datetime.combine(date.fromisoformat(day), time(), UTC)
    except ValueError:
        raise StoreError(f"{day!r} is no day: write it as YYYY-MM-DD") from None
    return (begin, ""), (begin + timedelta(days=1), "")


def between(
    first_seen: sa.Column[Any], key: sa.Column[Any], after: Place | None, before: Place | None
) -> list[sa.ColumnElement[bool]]:
    """Conditions on rows that lie between two places.

    One comparison a side, of the whole place: so each page begins in the index where the last one
    ended, instead of walking there from the beginning of the day.
    """
    place = sa.tuple_(first_seen, key)
    bounds: list[sa.ColumnElement[bool]] = []
    if after:
        bounds.append(place > sa.tuple_(sa.literal(after[0], UtcTime()), sa.literal(after[1])))
    if before:
        bounds.append(place < sa.tuple_(sa.literal(before[0], UtcTime()), sa.literal(before[1])))
    return bounds


def count(connection: Connection, table: sa.FromClause, where: Any = None) -> int:
    """The number of rows, of all or of those that meet a condition."""
    query = sa.select(sa.func.count()).select_from(table)
    return int(connection.execute(query if where is None else query.where(where)).scalar_one())


def file_row(row: sa.Row[Any]) -> FileRow:
    return FileRow(
        row.file_id,
        row.locator,
        row.token,
        row.state,
        row.reason,
        row.image_id,
        row.first_seen,
        row.last_seen,
    )


def file_rows(connection: Connection, file_ids: Collection[str]) -> dict[str, FileRow]:
    """The files of these ids that are known."""
    found: dict[str, FileRow] = {}
    for some in pages(file_ids):
        rows = connection.execute(sa.select(files).where(files.c.file_id.in_(some)))
        found |= {row.file_id: file_row(row) for row in rows}
    return found


def run_row(row: sa.Row[Any]) -> RunRow:
    plain = dict(row._mapping)
    rates = {tag: (has, of) for tag, (has, of) in plain.pop("rates").items()} if row.rates else None
    return RunRow(**plain | {"rates": rates, "alarms": tuple(row.alarms or ())})


# --- arrivals


def unsettled(connection: Connection, seen: Mapping[str, Arrival]) -> list[str]:
    """The file_ids of arrivals that the store does not know as they are."""
    tokens = {file_id: a.token for file_id, a in seen.items() if a.refused is None}
    left = dict.fromkeys(file_id for file_id in seen if file_id not in tokens)
    # All but the refused are known and unchanged, almost always: that costs a count a page.
    for some in pages(tokens):
        if count_settled(connection, {key: tokens[key] for key in some}) < len(some):
            left |= dict.fromkeys(some)
    for some in pages(list(left)):
        query = sa.select(files.c.file_id, files.c.token, files.c.state).where(
            files.c.file_id.in_(some)
        )
        for file_id, token, state in connection.execute(query):
            arrival = seen[file_id]
            refused_anew = arrival.refused is not None and state != "rejected"
            if token == arrival.token and state != "gone" and not refused_anew:
                del left[file_id]
    return list(left)


def count_settled(connection: Connection, tokens: Mapping[str, str]) -> int:
    """How many of these files are known with these tokens; one parameter, whatever the number."""
    pairs = sa.literal(json.dumps(tokens), sa.Text)
    if connection.dialect.name == "sqlite":
        rows = sa.func.json_each(pairs).table_valued("key", "value")
    else:
        rows = sa.func.json_each_text(sa.cast(pairs, sa.JSON)).table_valued("key", "value")
    known = rows.join(files, files.c.file_id == rows.c.key)
    settled = (files.c.token == rows.c.value) & ~GONE
    return count(connection, known, settled)


def note(
    connection: Connection, seen: Mapping[str, Arrival], file_ids: Sequence[str], now: datetime
) -> None:
    """Write down the arrivals of these ids: unknown, changed, back, or refused."""
    known = file_rows(connection, file_ids)
    inserts, updates, back = [], [], set()
    touched, let_go = set(), set()
    for file_id in sorted(file_ids):
        arrival, row = seen[file_id], known.get(file_id)
        state = "new" if arrival.refused is None else "rejected"
        image_id = None
        if row is None:
            values: dict[str, Any] = {"locator": arrival.locator, "first_seen": now}
        else:
            values = {}
            if "rejected" in (state, row.state):
                touched.add(day_of(row.first_seen))
            if state == "rejected":
                let_go.add(row.image_id)
            else:
                image_id = row.image_id if row.state != "rejected" else None
                if row.state == "gone" and row.token == arrival.token and image_id:
                    state = "tagged"
                    back.add(image_id)
        values |= {"token": arrival.token, "state": state, "image_id": image_id}
        values |= {"reason": clean(arrival.refused), "last_seen": now}
        if row is None:
            inserts.append({"file_id": file_id, **values})
            if state == "rejected":
                touched.add(day_of(now))
        else:
            updates.append({"id": file_id, **values})
    if inserts:
        connection.execute(sa.insert(files), inserts)
    update_files(connection, updates)
    renew(connection, sorted(back))
    bump(connection, touched | recheck_replaced(connection, let_go - {None}))


def update_files(connection: Connection, updates: Sequence[Mapping[str, Any]]) -> None:
    """Write the given columns of files; each mapping names its file as `id`."""
    if updates:
        which = files.c.file_id == sa.bindparam("id")
        columns: dict[str, Any] = {name: sa.bindparam(name) for name in updates[0] if name != "id"}
        connection.execute(sa.update(files).where(which).values(columns), list(updates))


def clean(reason: str | None) -> str | None:
    """A reason as text that every database takes: file names put NUL and half letters into it."""
    if reason is None:
        return None
    return reason.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()


# --- recording


def settle(
    connection: Connection, tagged: Sequence[Tagged], rejected: Sequence[RejectedFile]
) -> set[str]:
    """Settle the files that still wait as of the token they were read with; return the days."""
    asked: dict[str, Tagged | RejectedFile] = {}
    unwanted = forgotten_of(connection, [file.image_id for file in tagged])
    for settled in (tagged, rejected):
        for file in settled:
            if file.image_id in unwanted:
                file = RejectedFile(file.file_id, file.token, FORGOTTEN, file.image_id)
            asked.setdefault(file.file_id, file)
    known = file_rows(connection, asked)
    updates: list[dict[str, Any]] = []
    pictures: dict[str, dict[str, Any]] = {}
    touched, let_go = set(), set()
    for file_id in sorted(known):
        row, file = known[file_id], asked[file_id]
        if row.state not in ("new", "gone") or row.token != file.token:
            continue
        if row.image_id not in (None, file.image_id) or isinstance(file, RejectedFile):
            let_go.add(row.image_id)
        update = {"id": file_id, "image_id": file.image_id, "state": "tagged", "reason": None}
        if isinstance(file, RejectedFile):
            update |= {"state": "rejected", "reason": clean(file.reason)}
            touched.add(day_of(row.first_seen))
        else:
            picture = {"image_id": file.image_id, "width": file.width, "height": file.height}
            arrived = (
                row.last_seen
            )  # when these bytes were first seen, whatever the file was before
            earlier = pictures.get(file.image_id)
            if earlier is None or arrived < earlier["first_seen"]:
                pictures[file.image_id] = picture | {"first_seen": arrived}
        updates.append(update)
    update_files(connection, updates)
    touched |= keep_pictures(connection, pictures)
    return touched | recheck_replaced(connection, let_go - {None})


def keep_pictures(connection: Connection, pictures: Mapping[str, dict[str, Any]]) -> set[str]:
    """Insert the unknown pictures, renew the known ones; return the days of all."""
    touched, known = set(), set()
    for some in pages(pictures):
        rows = connection.execute(
            sa.select(images.c.image_id, images.c.day).where(images.c.image_id.in_(some))
        )
        for image_id, day in rows:
            known.add(image_id)
            touched.add(day)
    seq = last_seq(connection)
    order = sorted(pictures.values(), key=lambda p: (p["first_seen"], p["image_id"]))
    inserts = []
    for picture in order:
        if picture["image_id"] not in known:
            seq += 1
            day = day_of(picture["first_seen"])
            inserts.append(picture | {"day": day, "seq": seq, "replaced": False})
            touched.add(day)
    if inserts:
        connection.execute(sa.insert(images), inserts)
    renew(connection, [p["image_id"] for p in order if p["image_id"] in known])
    return touched


def last_seq(connection: Connection) -> int:
    return int(connection.execute(sa.select(sa.func.max(images.c.seq))).scalar() or 0)


def renew(connection: Connection, image_ids: Sequence[str]) -> None:
    """Put pictures that can be read (again) above whatever was found complete before."""
    if image_ids:
        first = last_seq(connection) + 1
        which = images.c.image_id == sa.bindparam("id")
        values = {"seq": sa.bindparam("to"), "replaced": False}
        connection.execute(
            sa.update(images).where(which).values(values),
            [{"id": image_id, "to": first + i} for i, image_id in enumerate(image_ids)],
        )


def recheck_replaced(connection: Connection, image_ids: Collection[str | None]) -> set[str]:
    """Mark those of the pictures that no file holds any more; return the days of all."""
    touched: set[str] = set()
    for some in pages(sorted(filter(None, image_ids))):
        held = sa.select(files.c.image_id).where(files.c.image_id.in_(some), NOT_REJECTED)
        free = set(some) - set(connection.execute(held).scalars())
        connection.execute(
            sa.update(images).where(images.c.image_id.in_(free)).values(replaced=True)
        )
        seen = sa.select(images.c.day).where(images.c.image_id.in_(some))
        touched |= set(connection.execute(seen.distinct()).scalars())
    return touched


def write_predictions(
    connection: Connection, said: Sequence[Prediction], run_id: str, now: datetime
) -> set[str]:
    """Write the predictions that are not there yet, of known pictures; return the days."""
    by_digest: dict[str, dict[str, Prediction]] = {}
    for prediction in said:
        by_digest.setdefault(prediction.digest, {}).setdefault(prediction.image_id, prediction)
    known = {v.digest: v for v in all_versions(connection, versions.c.digest.in_(by_digest))}
    days_of: dict[str, str] = {}
    for some in pages({prediction.image_id: None for prediction in said}):
        query = sa.select(images.c.image_id, images.c.day).where(images.c.image_id.in_(some))
        days_of |= dict(iter(connection.execute(query)))
    rows: list[dict[str, Any]] = []
    for digest, by_image in sorted(by_digest.items()):
        if digest not in known:
            raise StoreError(f"bundle {digest} is unknown to the store: add_version comes first")
        there = predicted(connection, digest, list(by_image))
        for image_id in sorted(by_image.keys() & days_of.keys() - there):
            prediction = by_image[image_id]
            check_scores(prediction, known[digest])
            rows.append(
                {
                    "image_id": image_id,
                    "bundle_digest": digest,
                    "scores": [round(float(s), SCORE_DIGITS) for s in prediction.scores],
                    "tags": list(prediction.tags),
                    "run_id": run_id,
                    "created_at": now,
                }
            )
    if rows:
        connection.execute(sa.insert(predictions), rows)
    return {days_of[row["image_id"]] for row in rows}


def lose(connection: Connection, file_ids: Sequence[str]) -> None:
    """Write down that files are not there any more, so that nobody looks for them again."""
    for some in pages(file_ids):
        which = sa.update(files).where(files.c.file_id.in_(some))
        connection.execute(which.where(TAGGED).values(state="gone"))
        # Nobody knows what its last bytes were: whatever comes back under the name is new.
        connection.execute(which.where(NEW).values(state="gone", token=""))


# --- forgetting


def forgotten_of(connection: Connection, image_ids: Collection[str]) -> set[str]:
    """Those of the pictures that a person wanted forgotten."""
    found: set[str] = set()
    for some in pages(image_ids):
        query = sa.select(forgotten.c.image_id).where(forgotten.c.image_id.in_(some))
        found |= set(connection.execute(query).scalars())
    return found


def forget(connection: Connection, image_id: str, now: datetime) -> bool:
    """Erase what is derived from a picture and refuse its bytes from now on; False: unknown."""
    seen = sa.select(images.c.day).where(images.c.image_id == image_id)
    touched = set(connection.execute(seen).scalars())
    of_it = files.c.image_id == image_id
    holders = sa.select(files.c.first_seen).where(of_it)
    touched |= {day_of(moment) for moment in connection.execute(holders).scalars()}
    if not touched:
        return bool(forgotten_of(connection, [image_id]))
    if not forgotten_of(connection, [image_id]):
        row = {"image_id": image_id, "forgotten_at": now}
        connection.execute(sa.insert(forgotten), row)
    for digest in connection.execute(sa.select(versions.c.digest)).scalars().all():
        said = (predictions.c.bundle_digest == digest) & (predictions.c.image_id == image_id)
        connection.execute(sa.delete(predictions).where(said))
    connection.execute(sa.delete(corrections).where(corrections.c.image_id == image_id))
    connection.execute(sa.delete(images).where(images.c.image_id == image_id))
    # What came under the name since is another picture; what went may come back, as an arrival.
    connection.execute(sa.update(files).where(of_it, NEW).values(image_id=None))
    connection.execute(sa.delete(files).where(of_it, GONE))
    connection.execute(sa.update(files).where(of_it).values(state="rejected", reason=FORGOTTEN))
    bump(connection, touched)
    return True


def remember(connection: Connection, which: sa.ColumnElement[bool]) -> None:
    """Let the bytes of rejected files be tagged again, though they were forgotten."""
    asked = sa.select(files.c.image_id).where(which, files.c.image_id.is_not(None))
    connection.execute(sa.delete(forgotten).where(forgotten.c.image_id.in_(asked)))


def not_forgotten() -> sa.ColumnElement[bool]:
    """The file does not hold bytes that were forgotten."""
    return ~sa.exists().where(forgotten.c.image_id == files.c.image_id)


def check_scores(prediction: Prediction, version: BundleVersion) -> None:
    """Refuse what cannot have come from the bundle it names."""
    if len(prediction.scores) != len(version.tags) or not all(
        map(math.isfinite, prediction.scores)
    ):
        raise StoreError(
            f"prediction of picture {prediction.image_id} by bundle {prediction.digest}: "
            f"{prediction.scores} are not {len(version.tags)} finite scores"
        )


def bump(connection: Connection, touched: Collection[str]) -> None:
    """Give each day a new revision."""
    for some in pages(sorted(touched)):
        there = sa.select(days.c.day).where(days.c.day.in_(some))
        known = set(connection.execute(there).scalars())
        connection.execute(
            sa.update(days).where(days.c.day.in_(known)).values(revision=days.c.revision + 1)
        )
        unknown = [{"day": day, "revision": 1, "published": 0} for day in some if day not in known]
        if unknown:
            connection.execute(sa.insert(days), unknown)


# --- backlog


def lacks(digest: str) -> sa.ColumnElement[bool]:
    """The picture has no prediction of this bundle."""
    return ~sa.exists().where(
        predictions.c.bundle_digest == digest, predictions.c.image_id == images.c.image_id
    )


def readable() -> sa.ColumnElement[bool]:
    """Some file holds the picture and was there when last looked for."""
    return sa.exists().where(files.c.image_id == images.c.image_id, TAGGED)


def covered(connection: Connection, digests: Collection[str]) -> dict[str, int]:
    """The seq up to which each bundle was found complete; 0 for none."""
    query = sa.select(coverage).where(coverage.c.bundle_digest.in_(digests))
    found = {row.bundle_digest: int(row.seq) for row in connection.execute(query)}
    return {digest: found.get(digest, 0) for digest in digests}


def remember_covered(connection: Connection, complete: Mapping[str, int]) -> None:
    """Raise the seq up to which bundles are complete; it never falls."""
    there = covered(connection, complete)
    for digest, seq in complete.items():
        if not there[digest]:
            connection.execute(sa.delete(coverage).where(coverage.c.bundle_digest == digest))
            connection.execute(sa.insert(coverage), {"bundle_digest": digest, "seq": seq})
        elif there[digest] < seq:
            which = coverage.c.bundle_digest == digest
            connection.execute(sa.update(coverage).where(which).values(seq=seq))


def predicted(connection: Connection, digest: str, image_ids: Sequence[str]) -> set[str]:
    """Those of the pictures that have a prediction of this bundle."""
    found: set[str] = set()
    for some in pages(image_ids):
        query = sa.select(predictions.c.image_id).where(
            predictions.c.bundle_digest == digest, predictions.c.image_id.in_(some)
        )
        found |= set(connection.execute(query).scalars())
    return found


def locators_of(
    connection: Connection, image_ids: Sequence[str], which: sa.ColumnElement[bool]
) -> dict[str, tuple[str, ...]]:
    """The locators of each picture's files, of those files that meet a condition, sorted."""
    found: dict[str, tuple[str, ...]] = {}
    for some in pages(image_ids):
        query = sa.select(files.c.image_id, files.c.locator).where(
            files.c.image_id.in_(some), which
        )
        for image_id, locator in sorted(connection.execute(query)):
            found[image_id] = (*found.get(image_id, ()), locator)
    return found


# --- versions and ledger


def all_versions(connection: Connection, where: Any = None) -> list[BundleVersion]:
    """The known bundles in the order of registration."""
    query = sa.select(versions).order_by(versions.c.registered_at, versions.c.digest)
    rows = connection.execute(query if where is None else query.where(where))
    return [
        BundleVersion(
            row.digest,
            row.group_name,
            tuple(row.tags),
            row.registry_name,
            row.version,
            row.registered_at,
        )
        for row in rows
    ]


def check_belongs(connection: Connection, digest: str, group: str) -> None:
    """Refuse to make live what is unknown or another group's."""
    known = all_versions(connection, versions.c.digest == digest)
    if not known:
        raise StoreError(f"bundle {digest} is unknown to the store: add_version comes first")
    if known[0].group != group:
        raise StoreError(f"bundle {digest} is of group {known[0].group}, not {group}")


def moves(connection: Connection, *where: Any) -> list[Move]:
    """Rows of the ledger that meet the conditions, in the order they were begun."""
    rows = connection.execute(sa.select(ledger).where(*where).order_by(ledger.c.id))
    return [
        Move(
            row.id,
            row.group_name,
            row.from_digest,
            row.to_digest,
            row.kind,
            row.state,
            row.by,
            row.why,
            row.data_revision,
            row.mlflow_run,
            row.created_at,
            row.done_at,
        )
        for row in rows
    ]


def chains(connection: Connection, when: datetime | None = None) -> dict[str, list[str]]:
    """Group -> the bundles that count, now or at a time, for every group that ever had a live one.

    A removed group has an empty list.
    """
    until = [] if when is None else [ledger.c.done_at <= when]
    by_group: dict[str, list[Move]] = {}
    for move in moves(connection, ledger.c.state == "done", *until):
        by_group.setdefault(move.group, []).append(move)
    return {group: chain_of(its) for group, its in by_group.items()}


def visible_chains(connection: Connection, groups: Sequence[str]) -> dict[str, list[str]]:
    """The chains of those of the groups that were not removed; empty before the first champion."""
    there = chains(connection)
    return {group: there.get(group, []) for group in groups if there.get(group, [""])}


def close_move(connection: Connection, move_id: int, state: str, now: datetime | None) -> bool:
    """Turn a pending move into `state`; False where it is in that state already."""
    found = moves(connection, ledger.c.id == move_id)
    if not found:
        raise StoreError(f"no move {move_id} in the ledger")
    if found[0].state == state:
        return False
    if found[0].state != "pending":
        raise StoreError(f"move {move_id} is {found[0].state}: it cannot become {state} any more")
    update = sa.update(ledger).where(ledger.c.id == move_id)
    connection.execute(update.values(state=state, done_at=now or datetime.now(UTC)))
    return True


# --- current tags


def group_tags(
    connection: Connection,
    image_ids: Sequence[str],
    group: str,
    chain: Sequence[str],
    known: Mapping[str, BundleVersion],
    when: datetime | None = None,
) -> dict[str, GroupTags]:
    """The tags of a group for each of the pictures (at most a page), now or at a time."""
    found: dict[str, GroupTags] = {}
    lacking = list(image_ids)
    for place, digest in enumerate(chain):
        if not lacking:
            break
        query = sa.select(predictions.c.image_id, predictions.c.scores, predictions.c.tags).where(
            predictions.c.bundle_digest == digest, predictions.c.image_id.in_(lacking)
        )
        if when is not None:
            query = query.where(predictions.c.created_at <= when)
        version = known[digest]
        for image_id, scores, tags in connection.execute(query):
            found[image_id] = GroupTags(
                tuple(tags),
                dict(zip(version.tags, scores, strict=True)),
                digest,
                version.version,
                stale=place > 0,
                corrected=False,
            )
        lacking = [image_id for image_id in lacking if image_id not in found]
    for image_id, tags in corrected(connection, image_ids, group, when):
        said = found.get(image_id, NOTHING_SAID)
        found[image_id] = replace(said, tags=tuple(tags), stale=False, corrected=True)
    return found


def corrected(
    connection: Connection, image_ids: Sequence[str], group: str, when: datetime | None
) -> list[tuple[str, list[str]]]:
    """(image_id, tags) of the corrections in force, now or at a time."""
    query = sa.select(corrections.c.image_id, corrections.c.tags).where(
        corrections.c.group_name == group, corrections.c.image_id.in_(image_ids)
    )
    never = corrections.c.withdrawn_at.is_(None)
    if when is None:
        query = query.where(never)
    else:
        later = sa.or_(never, corrections.c.withdrawn_at > when)
        query = query.where(corrections.c.created_at <= when, later)
    return [(image_id, tags) for image_id, tags in connection.execute(query)]


def group_counts(
    connection: Connection, group: str, chain: Sequence[str] | None, shown: int
) -> GroupCounts:
    """How many of the `shown` pictures rest on what; `chain` None: the group was removed."""
    if chain is None:
        return GroupCounts(0, 0, shown)
    if chain:
        said = count(connection, predictions, predictions.c.bundle_digest == chain[0])
        of_replaced = sa.select(sa.func.count()).select_from(images)
        of_replaced = of_replaced.where(images.c.replaced, ~lacks(chain[0]))
        if said - connection.execute(of_replaced).scalar_one() == shown:
            return GroupCounts(shown, 0, 0)  # as on most days: spares the search for the rest
    in_force = sa.exists().where(
        corrections.c.group_name == group,
        corrections.c.image_id == images.c.image_id,
        corrections.c.withdrawn_at.is_(None),
    )
    without = [~images.c.replaced, ~in_force, *map(lacks, chain[:1])]
    missing = count(connection, images, sa.and_(*without))
    untagged = missing
    if missing and chain[1:]:
        untagged = count(connection, images, sa.and_(*without, *map(lacks, chain[1:])))
    return GroupCounts(shown - missing, missing - untagged, untagged)
