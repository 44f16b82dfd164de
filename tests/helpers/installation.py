"""A small installation that can tag: what a test of the night begins with."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Concatenate

import numpy as np
import yaml
from helpers import stores
from helpers.bundles import write_bundle
from PIL import Image

from shoetagger.config import params as parameters
from shoetagger.config.reading import read_yaml
from shoetagger.config.settings import Settings
from shoetagger.images.detector import Detector
from shoetagger.images.views import Framing, Transform
from shoetagger.ops.installation import Installation, opened
from shoetagger.orchestration import nightly
from shoetagger.promotion import compare as comparing
from shoetagger.promotion import moves, versions
from shoetagger.promotion import register as registering
from shoetagger.publishing import publication
from shoetagger.store.store import Store

ROOT = Path(__file__).parents[2]
TAGS = parameters.load(ROOT / "params.yaml").groups


def write_often(folder: Path) -> Path:
    """Make a project whose nights write small batches; return its folder."""
    return make_project(folder / "repo", batch_size=8)


def make_project(repo: Path, **tag: int) -> Path:
    """Make a project with our parameters but one decoding process, as starting each takes time."""
    repo.mkdir(parents=True)
    document = read_yaml((ROOT / "params.yaml").read_text())
    document["tag"] |= {"decode_workers": 1} | tag
    (repo / "params.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    (repo / "dvc.yaml").write_text("")
    return repo


def install(folder: Path, store_url: str | None = None) -> Settings:
    """Set up an installation with two live groups of three, its MLflow out of reach."""
    home = folder / "state"
    found = Settings(
        repo=make_project(folder / "project"),
        home=home,
        inbox=folder / "inbox",
        store_url=store_url or f"sqlite:///{home / 'store.db'}",
        tracking_uri="http://127.0.0.1:9",
        device="cpu",
    )
    home.mkdir(parents=True)
    found.inbox.mkdir()
    stores.migrated(found.store_url)
    make_live(found, "color", head_seed=1)
    make_live(found, "style", head_seed=2)
    return found


def make_live(
    settings: Settings,
    group: str,
    head_seed: int,
    size: int = 32,
    detector: Detector | None = None,
) -> str:
    """Put a bundle into the cache and make it live, as a promotion does; returns its digest."""
    beside = settings.home / "made"
    framing: Framing = "shoe" if detector else "whole"
    bundle = write_bundle(
        beside, group, TAGS[group].tags, head_seed=head_seed,
        transform=Transform(size=size, framing=framing, detector=detector),
    )  # fmt: skip
    target = settings.bundles / bundle.digest
    target.parent.mkdir(exist_ok=True)
    if not target.exists():
        beside.rename(target)
    with Store(settings.store_url) as store:
        now = datetime.now(UTC)
        number = str(len(store.ledger.versions(group)) + 1)
        store.ledger.add_version(
            digest=bundle.digest, group=group, tags=bundle.tags,
            registry_name=f"shoetagger-{group}", version=number, now=now,
        )  # fmt: skip
        stores.make_live(store, group, bundle.digest, now=now)
    shutil.rmtree(beside, ignore_errors=True)
    return bundle.digest


def put_pictures(settings: Settings, count: int, seed: int = 0) -> list[Path]:
    rng = np.random.default_rng(seed)
    paths = []
    for i in range(count):
        path = settings.inbox / f"shoe {seed}-{i}, 'new'.jpg"
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)
        paths.append(path)
    return paths


def predictions(settings: Settings) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return image id -> group -> current tags."""
    with Store(settings.store_url) as store:
        return {
            row.image_id: {group: current.tags for group, current in row.groups.items()}
            for row in store.current.rows(list(TAGS))
        }


def _opening(
    action: Callable[Concatenate[Installation, ...], Any],
) -> Callable[Concatenate[Settings, ...], Any]:
    """Return `action` with settings in the place of the installation, opened for each call."""

    @functools.wraps(action)
    def call(settings: Settings, *arguments: Any, **options: Any) -> Any:
        with opened(settings) as installation:
            return action(installation, *arguments, **options)

    return call


# What tasks and commands do: one installation each.
begin = _opening(nightly.begin)
find_arrivals = _opening(nightly.find_arrivals)
shards = _opening(nightly.shards)
tag_shard = _opening(nightly.tag_shard)
publish = _opening(nightly.publish)
finish = _opening(nightly.finish)


@_opening
def forget(installation: Installation, image_id: str) -> dict[str, int]:
    return publication.forget(
        installation.store,
        installation.params,
        image_id,
        published=installation.settings.published,
        inbox=installation.settings.inbox,
    )


@_opening
def bundle_directory(installation: Installation, digest: str) -> Path:
    bundles = installation.settings.bundles
    return versions.bundle_directory(installation.store, installation.registry, bundles, digest)


@_opening
def register(installation: Installation, *what: Any, **options: Any) -> registering.Challenger:
    return registering.register(
        installation.settings, installation.store, installation.registry, *what, **options
    )


@_opening
def compare(installation: Installation, *what: Any) -> comparing.Comparison:
    return comparing.compare(
        installation.settings, installation.params, installation.store, installation.registry, *what
    )


@_opening
def promote(installation: Installation, *what: Any, by: str) -> None:
    moves.promote(installation.store, installation.registry, *what, by=by)


@_opening
def rollback(installation: Installation, group: str, **what: Any) -> str:
    bundles = installation.settings.bundles
    return moves.rollback(installation.store, installation.registry, group, bundles=bundles, **what)


@_opening
def reconcile(installation: Installation, *groups: str) -> None:
    bundles = installation.settings.bundles
    moves.reconcile(installation.store, installation.registry, groups, bundles=bundles)
