"""The desk's pages: HTML from templates, everything in them escaped."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from urllib.parse import urlencode

from ..config.params import Params
from ..config.recipe import Group
from ..learning.audit.finding import picture_file
from ..publishing.pages import COLOURS, pager
from ..rendering import template
from ..review.choosing import DRAWN, Choice
from ..review.quality import Quality
from ..store.rows import BundleVersion, Correction
from .audit import Audit, model_says, sheet_says
from .cards import Card, GroupCard
from .challengers import Challenger
from .gallery import ArticleOf, Page, RejectedFile, ToCollect
from .selection import SIZE, STATES, Selection, field_of
from .why import GroupMaps

# The keys of tags, in order; the other letters are commands (see desk.js).
KEYS = "1234567890qwertyiopadfghjklcvbm"

# The links at the top of every page: address and words.
SCREENS = {
    "": "Pictures",
    "queue": "Next to label",
    "collection": "To collect",
    "quality": "Quality",
    "rejected": "Rejected files",
    "audit": "Audit",
    "challengers": "Challengers",
}


@dataclass(frozen=True)
class Key:
    """A tag as a button, and the key that presses it; "" where there are more tags than keys."""

    tag: str
    key: str


def gallery(page: Page, params: Params, may_write: bool, notice: str | None = None) -> str:
    """Return a page of pictures with its filters; without edits where the reader may not write.

    Here as in the other pages, `notice` is what readers should know about the installation.
    """
    pages = max(1, -(-page.found.pictures // SIZE))
    return _render(
        "gallery.html",
        params,
        root="",
        screen="",
        notice=notice,
        may_write=may_write,
        page=page,
        selection=page.selection,
        pages=pages,
        numbers=pager(page.selection.page, pages),
        first=(page.selection.page - 1) * SIZE + 1,
        states=STATES,
        keys=keys(params.groups),
    )


def picture(
    card: Card,
    history: Sequence[Correction],
    similar: Sequence[Card],
    article: ArticleOf | None,
    params: Params,
    may_write: bool,
    notice: str | None = None,
) -> str:
    """Return the page of one picture: every tag's score, what people edited, what is like it."""
    return _render(
        "picture.html",
        params,
        root="../",
        notice=notice,
        may_write=may_write,
        picture=card,
        history=history,
        similar=similar,
        article=article,
        keys=keys(params.groups),
    )


def rejected(files: Sequence[RejectedFile], may_write: bool, notice: str | None = None) -> str:
    """Return the page of the files that could not be tagged."""
    return _render(
        "rejected.html",
        None,
        root="",
        screen="rejected",
        notice=notice,
        may_write=may_write,
        files=files,
    )


def why(
    card: Card,
    maps: Mapping[str, GroupMaps],
    group: str | None,
    tag: str | None,
    params: Params,
    may_write: bool,
    notice: str | None = None,
) -> str:
    """Return the page with the heat map of one tag, of the first that is current by default."""
    current = [(g.name, t.name) for g in card.groups for t in g.chosen]
    all_tags = [(name, t) for name, of_group in maps.items() for t in of_group.tags]
    there = [pair for pair in [(group, tag), *current, *all_tags] if pair in all_tags]
    return _render(
        "why.html",
        params,
        root="../../",
        notice=notice,
        may_write=may_write,
        picture=card,
        maps=maps,
        shown=there[0] if there else None,
        current=current,
    )


def audit(
    found: Audit | None, known: Collection[str], may_write: bool, notice: str | None = None
) -> str:
    """Return the page of an audit; pictures that are `known` have a page of their own."""
    return _render(
        "audit.html",
        None,
        root="",
        screen="audit",
        notice=notice,
        may_write=may_write,
        audit=found,
        known=known,
    )


def challengers(
    found: Sequence[tuple[BundleVersion, datetime]], may_write: bool, notice: str | None = None
) -> str:
    """Return the list of the challengers that were compared."""
    return _render(
        "challengers.html",
        None,
        root="",
        screen="challengers",
        notice=notice,
        may_write=may_write,
        challengers=found,
    )


def challenger(
    found: Challenger,
    cards: Sequence[Card],
    params: Params,
    may_write: bool,
    notice: str | None = None,
) -> str:
    """Return the page of what a challenger would change, with the pictures that are still there."""
    changes = {change.image_id: change for change in found.changes}
    return _render(
        "challenger.html",
        params,
        root="../../",
        screen="challengers",
        notice=notice,
        may_write=may_write,
        challenger=found,
        pictures=[(card, changes[card.image_id]) for card in cards],
    )


def queue(
    choice: Choice,
    cards: Sequence[Card],
    params: Params,
    may_write: bool,
    notice: str | None = None,
) -> str:
    """Return the page of the pictures to check next; those without a card went meanwhile."""
    by_id = {card.image_id: card for card in cards}
    shown = [one for one in choice.pictures if one.image_id in by_id]
    return _render(
        "queue.html",
        params,
        root="",
        screen="queue",
        notice=notice,
        may_write=may_write,
        pictures=[(by_id[one.image_id], one) for one in shown],
        drawn=sum(one.origin == DRAWN for one in shown),
        notes=choice.notes,
        keys=keys(params.groups),
    )


def collection(
    pictures: Sequence[ToCollect],
    total: int,
    params: Params,
    may_write: bool,
    notice: str | None = None,
) -> str:
    """Return the page of what the next collection takes, `total` pictures, of which some show."""
    return _render(
        "collection.html",
        params,
        root="",
        screen="collection",
        notice=notice,
        may_write=may_write,
        pictures=pictures,
        total=total,
        labels=params.labels,
        keys=keys(params.groups),
    )


def quality(
    found: Quality, wanted: Sequence[str], params: Params, notice: str | None = None
) -> str:
    """Return the page of how right the tags are; `wanted` are digests of versions to show whole.

    A group of which none is wanted shows its latest version.
    """
    chosen = {
        name: next((v for v in group.versions if v.digest in wanted), group.versions[0])
        for name, group in found.groups.items()
        if group.versions
    }

    def link(name: str, digest: str) -> str:
        digests = {group: version.digest for group, version in chosen.items()} | {name: digest}
        return f"?{urlencode([('version', each) for each in digests.values()])}"

    return _render(
        "quality.html",
        params,
        root="",
        screen="quality",
        notice=notice,
        may_write=False,
        quality=found,
        chosen=chosen,
        link=link,
    )


def card(picture: Card, params: Params) -> str:
    """Return the HTML of one picture's card, as the gallery shows it."""
    return _render("card.html", params, root="", picture=picture)


def error(message: str, root: str) -> str:
    """Return a page that says what went wrong; `root` leads from its address to the gallery."""
    return _render("error.html", None, root=root, may_write=False, message=message)


def keys(groups: Mapping[str, Group]) -> dict[str, list[Key]]:
    """Return each group's tags with their keys, which are dealt out over all groups."""
    left = iter(KEYS)
    return {
        name: [Key(tag, next(left, "")) for tag in group.tags] for name, group in groups.items()
    }


def _render(
    name: str,
    params: Params | None,
    *,
    screen: str | None = None,
    notice: str | None = None,
    **values: object,
) -> str:
    """Render a page; `screen` is which of SCREENS it is, None for a page that none leads to.

    A page that shows no tags needs no `params`.
    """
    groups: Mapping[str, Group] = params.groups if params else {}
    title = params.title if params else str
    functions: dict[str, Callable[..., object]] = {
        "colour": lambda group: f"g{list(groups).index(group) % COLOURS}",
        "field_of": field_of,
        "title": title,
        "listed": lambda tags: ", ".join(map(title, tags)),
        "caption": lambda picture: _caption(picture, title),
        "hint": lambda group, score, threshold: _hint(group, score, threshold, title),
        "address": _address,
        "without": _without,
        "sheet_says": sheet_says,
        "model_says": model_says,
        "file_of": picture_file,
        "query": lambda **fields: urlencode(fields),
    }
    return template(f"desk/{name}").render(
        groups=groups, screens=SCREENS, screen=screen, notice=notice, **functions, **values
    )


def _caption(picture: Card, title: Callable[[str], str]) -> str:
    """Return a picture's name and tags as one sentence, for screen readers."""
    tags = [title(tag.name) for group in picture.groups for tag in group.chosen]
    tags = [picture.verdict] if picture.verdict else tags
    name = picture.files[0] if picture.files else picture.image_id[:12]
    return f"{name}: {', '.join(tags) or 'no tags'}"


def _hint(
    group: GroupCard,
    score: float | None,
    threshold: float | None,
    title: Callable[[str], str],
) -> str:
    """Return the tooltip of a tag: where it comes from and how sure it is."""
    parts = [title(group.name)]
    if group.state == "corrected" and group.at is not None:
        done = "confirmed" if group.kind == "confirm" else "set"
        parts.append(f"{done} by {group.by} on {group.at:%Y-%m-%d}")
    if score is not None:
        limit = "" if threshold is None else f" (threshold {threshold:.2f})"
        parts.append(f"score {score:.2f}{limit}")
    if group.version is not None:
        parts.append(f"version {group.version}")
    if group.state == "stale":
        parts.append("of an earlier version, not tagged again yet")
    return " · ".join(parts)


def _address(selection: Selection, page: int) -> str:
    """Return the link to a page of the same pictures."""
    return f"?{selection.at(page).query()}"


def _without(selection: Selection, group: str, tag: str) -> str:
    """Return the link to the pictures without one of the chosen tags or states."""
    if group == "state":
        states = tuple(state for state in selection.states if state != tag)
        return f"?{replace(selection, states=states, page=1).query()}"
    tags: Mapping[str, Iterable[str]] = selection.tags
    left = {g: tuple(t for t in chosen if (g, t) != (group, tag)) for g, chosen in tags.items()}
    return f"?{replace(selection, tags=left, page=1).query()}"
