"""The desk's view of an installation: published tables, what people edited since, the store."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

from ..collection.gather import gather, no_shoes
from ..config.last_good import load_or_last_good
from ..config.params import Params
from ..config.recipe import Group
from ..config.settings import Settings
from ..errors import ShoetaggerError
from ..publishing import thumbnails
from ..publishing.articles import Article
from ..publishing.rows import rows, shown_name
from ..review.choosing import Choice
from ..review.label_queue import LabelQueue
from ..storage.places import published_at
from ..store.rows import WHOLE_IMAGE, Correction, Edit, StoreError
from ..store.store import Store
from .cards import Card, cards
from .catalogue import Catalogue, Found
from .selection import Selection
from .why import Explainer, GroupMaps

ORIGIN = "browse"
REJECTED_SHOWN = 500
SIMILAR_SHOWN = 8
ARTICLE_SHOWN = 24
COLLECTION_SHOWN = 500


class UnknownPictureError(ShoetaggerError):
    """The store has no such picture, or no longer."""


@dataclass(frozen=True)
class Page:
    """A page of the gallery; `cards` may lack pictures that went since the tables were written."""

    selection: Selection
    found: Found
    cards: Sequence[Card]
    days: tuple[str, ...]
    has_articles: bool


@dataclass(frozen=True)
class ArticleOf:
    """The article that a picture shows: its `others`, the latest first, and its tags.

    `pictures` counts this one, too; `tags` are by group, None where no picture has been tagged.
    """

    number: str
    pictures: int
    others: Sequence[Card]
    tags: Mapping[str, tuple[str, ...] | None]


@dataclass(frozen=True)
class ToCollect:
    """A picture that the next collection takes; `words` say who checked it, and where."""

    card: Card
    words: str


@dataclass(frozen=True)
class RejectedFile:
    """A file that could not be tagged, by its name for people."""

    file_id: str
    file: str
    locator: str
    reason: str
    first_seen: datetime


class Gallery:
    """Pages and edits for any number of threads; `store` is opened once."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = Store(settings.store_url)
        self.label_queue = LabelQueue(self.store, settings.published, settings.bundles)
        self._catalogue = Catalogue(settings.published)
        self._published = published_at(settings.published)
        self._explainer = Explainer(settings)
        self._lock = threading.Lock()
        self._params: tuple[tuple[int, int], Params, str | None] | None = None
        self._last_correction: int | None = None
        self._disputed: set[str] = set()  # as of that correction

    def close(self) -> None:
        self.store.close()

    @property
    def groups(self) -> Mapping[str, Group]:
        """The groups of `params`."""
        return self.params.groups

    @property
    def params(self) -> Params:
        """The params.yaml of now, or the last one without a fault, which the night goes by as well.

        Raises ParamsError where it is wrong and was never right.
        """
        return self._read_params()[0]

    @property
    def params_fault(self) -> str | None:
        """What is wrong with params.yaml now; None where nothing is."""
        return self._read_params()[1]

    def _read_params(self) -> tuple[Params, str | None]:
        try:
            status = self.settings.params_file.stat()
            stamp = (status.st_mtime_ns, status.st_size)
        except FileNotFoundError:
            stamp = (0, 0)
        if self._params is None or self._params[0] != stamp:
            self._params = stamp, *load_or_last_good(self.settings)
        return self._params[1:]

    def page(self, selection: Selection) -> Page:
        """Return the pictures of a selection, with the tags that they have this moment."""
        groups = self.groups
        with self._lock:
            self._bring_up_to_date(groups)
            index, disputed = self._catalogue.index, self._disputed
        found = index.find(selection, groups, self.params.audit.exclusive, disputed)
        has_articles = self.params.articles.pattern is not None
        return Page(selection, found, self.cards(found.image_ids), index.days, has_articles)

    def cards(self, image_ids: Sequence[str]) -> list[Card]:
        """Return the cards of pictures in this order, without those that the store has not."""
        groups = self.groups
        found = {
            row.image_id: row for row in self.store.current.rows(list(groups), image_ids=image_ids)
        }
        return cards(
            [found[image_id] for image_id in image_ids if image_id in found],
            self.store.corrections.in_force(image_ids),
            groups,
            inbox=self.settings.inbox,
            bundles=self.settings.bundles,
        )

    def known(self, image_ids: Iterable[str]) -> set[str]:
        """Return which of these pictures arrived, and so have a page."""
        return {row.image_id for row in self.store.current.rows([], image_ids=sorted(image_ids))}

    def card(self, image_id: str) -> Card:
        """Return the card of one picture; raises UnknownPictureError where there is none."""
        found = self.cards([image_id])
        if not found:
            raise UnknownPictureError(
                f"there is no picture {image_id[:12]}: it may have been forgotten"
            )
        return found[0]

    def article(self, card: Card) -> ArticleOf | None:
        """Return the article that a picture shows, by its name; None where no name tells."""
        number = self.params.articles.of(card.files)
        if number is None:
            return None
        groups = self.groups
        with self._lock:
            self._bring_up_to_date(groups)
            index = self._catalogue.index
        image_ids = [card.image_id, *(i for i in index.of_article(number) if i != card.image_id)]
        current = self.store.current.rows(list(groups), image_ids=image_ids)
        pictures = Article()
        for row in rows(current, groups, self.settings.inbox, self.params.articles):
            pictures.add(row)
        tags = {name: pictures.tags(name, group) for name, group in groups.items()}
        others = self.cards(image_ids[1 : ARTICLE_SHOWN + 1])
        return ArticleOf(number, pictures.pictures, others, tags)

    def history(self, image_id: str) -> list[Correction]:
        """Return all that people edited of a picture, the latest first."""
        return self.store.corrections.history(image_id)[::-1]

    def thumbnail(self, image_id: str) -> bytes | None:
        """Return a picture's thumbnail as JPEG; None where there is none."""
        return self._published.read(thumbnails.thumbnail_name(image_id)) or None

    def preview(self, image_id: str) -> bytes | None:
        """Return a picture's preview, or its thumbnail where it has none any more, as JPEG."""
        preview = self._published.read(thumbnails.preview_name(image_id))
        return preview or self.thumbnail(image_id)

    def similar(self, image_id: str) -> list[Card]:
        """Return the most similar pictures that people labelled, the nearest first."""
        found = self.store.vectors.similar_labelled(image_id, SIMILAR_SHOWN)
        return self.cards([similar.image_id for similar in found])

    def why(self, card: Card) -> Mapping[str, GroupMaps]:
        """Return by group the heat maps of a picture's scores, or why there are none.

        Raises ExplanationError, and BusyError, as Explainer does.
        """
        digests = {group.name: group.digest for group in card.groups if group.digest}
        return self._explainer.explain(card.image_id, digests)

    def edit(self, edits: Sequence[Edit], by: str) -> list[int]:
        """Write a person's edits, all or none; returns their ids, by which they can be undone.

        Raises StoreError for a group or tag that params.yaml lacks, and as Corrections.apply does.
        """
        for edit in edits:
            _refuse_unknown(edit, self.groups)
        now = datetime.now(UTC)
        return self.store.corrections.apply(edits, by=by, why="", origin=ORIGIN, now=now)

    def undo(self, ids: Sequence[int], by: str) -> list[str]:
        """Take a person's own edits back, all or none; returns the pictures concerned."""
        return self.store.corrections.undo(ids, by=by, now=datetime.now(UTC))

    def next_to_label(self, person: str) -> Choice:
        """Return the pictures that a person should check next, without those they passed on."""
        params = self.params
        return self.label_queue.choose(
            params.groups,
            params.labels.queue,
            params.title,
            exclusive=params.audit.exclusive,
            skipped=self.store.skips.of(person),
        )

    def to_collect(self) -> tuple[list[ToCollect], int]:
        """Return the first of the pictures that the next collection takes, and how many it takes.

        Those that are not shoes come last: they lose their rows, if the label sheet has them.
        """
        checked = list(gather(self.store, self.groups))
        judged = list(no_shoes(self.store))
        words = {one.image_id: f"{one.by} · {one.origin}" for one in checked[:COLLECTION_SHOWN]}
        words |= {one.image_id: one.by for one in judged[: COLLECTION_SHOWN - len(words)]}
        shown = [ToCollect(card, words[card.image_id]) for card in self.cards(list(words))]
        return shown, len(checked) + len(judged)

    def rejected(self) -> list[RejectedFile]:
        """Return the latest of the files that could not be tagged."""
        return [
            RejectedFile(
                row.file_id,
                shown_name(row.locator, self.settings.inbox),
                row.locator,
                row.reason,
                row.first_seen,
            )
            for row in islice(self.store.files.rejected(), REJECTED_SHOWN)
        ]

    def retry(self, locators: Sequence[str]) -> int:
        """Let rejected files be tried again the next night; returns how many."""
        return self.store.files.retry(locators)

    def _bring_up_to_date(self, groups: Mapping[str, Group]) -> None:
        """Read the tables that changed, and lay what people edited since over them."""
        changed = self._catalogue.refresh(groups)
        corrections = self.store.corrections
        if self._last_correction is None:
            self._last_correction = corrections.last()
            self._disputed = corrections.disputed()
        self._last_correction, edited = corrections.since(self._last_correction)
        if edited:
            self._disputed = corrections.disputed()
        if changed:
            # The index was built from the tables alone, some of which are of before the last edits.
            edited |= corrections.images_of(day for day, _ in self.store.days.changed())
        if edited:
            current = self.store.current.rows(list(groups), image_ids=sorted(edited))
            self._catalogue.overlay(current)


def _refuse_unknown(edit: Edit, groups: Mapping[str, Group]) -> None:
    if edit.kind == "verdict" and edit.group == WHOLE_IMAGE and not edit.tags:
        return
    if edit.kind == "verdict":
        raise StoreError("a verdict is on the whole picture, without tags: load the page again")
    if edit.group not in groups:
        raise StoreError(f"there is no group {edit.group!r} in params.yaml: load the page again")
    unknown = _unknown(edit.tags or (), groups[edit.group].tags)
    if unknown:
        raise StoreError(
            f"{edit.group} has no tag {', '.join(map(repr, unknown))} in params.yaml: "
            "load the page again"
        )


def _unknown(tags: Iterable[str], known: Sequence[str]) -> list[str]:
    return [tag for tag in tags if tag not in known]
