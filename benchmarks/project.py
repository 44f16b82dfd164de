"""This project on the same pictures: the very code of the nightly DAG's shards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from shoetagger.config.settings import Settings, sqlite_url
from shoetagger.inference.bundle import Bundle, load_bundle
from shoetagger.inference.engine import Engine
from shoetagger.ops.installation import opened
from shoetagger.promotion import versions
from shoetagger.store.predictions import Predictions
from shoetagger.store.store import Store
from shoetagger.tagging.run import TaggingRun, find_arrivals
from shoetagger.tagging.shard import load_pinned, tag_shard

from .clock import Clock
from .int8 import RUNTIMES, Int8Engine

if TYPE_CHECKING:
    from .isolated import Plan


def installation(repo: Path, home: Path, inbox: Path, bundles: Sequence[Path]) -> Settings:
    """Make a home with an empty store that knows the bundles, without MLflow."""
    settings = Settings(
        repo=repo,
        home=home,
        inbox=inbox,
        store_url=sqlite_url(home / "store.db"),
        tracking_uri="http://127.0.0.1:9",
        device="cpu",
    )
    settings.bundles.mkdir(parents=True)
    with Store(settings.store_url) as store:
        store.migrate()
        loaded = {folder: load_bundle(folder) for folder in bundles}
        for folder, bundle in loaded.items():
            (settings.bundles / bundle.digest).symlink_to(folder)
        make_known(store, loaded.values())
    return settings


def make_known(store: Store, bundles: Iterable[Bundle]) -> None:
    """Add bundles to the store, as versions that no registry has."""
    for bundle in bundles:
        store.ledger.add_version(
            digest=bundle.digest,
            group=bundle.group,
            tags=bundle.tags,
            registry_name=None,
            version=None,
            now=datetime.now(UTC),
        )


def start_run(store: Store) -> TaggingRun:
    """Start a tagging run with all bundles that the store knows."""
    pins = {version.group: version.digest for version in store.ledger.versions()}
    now = datetime.now(UTC)
    run_id = store.runs.start("manual", pins, now)
    return TaggingRun(
        run_id=run_id,
        kind="manual",
        started_at=now.isoformat(),
        pins=pins,
        versions={},
        left_out=(),
    )


def tag_inbox(settings: Settings, run: TaggingRun, clock: Clock, plan: Plan) -> None:
    """(d), (e), (f) Find the pictures in the inbox and tag them; the bundles make the variant."""
    with ExitStack() as stack:
        stack.enter_context(clock.of_function(versions, "bundle_directory", "start"))
        stack.enter_context(clock.of_function(Engine, "__init__", "start"))
        stack.enter_context(clock.of_function(Engine, "predict_and_describe", "model"))
        stack.enter_context(clock.of_function(Predictions, "record", "write"))
        here = stack.enter_context(opened(settings))
        find_arrivals(here.store, settings.inbox, run, options=here.params.tag, state=settings.home)
        if plan.runtime is None:
            engine = load_pinned(
                here.store,
                here.registry,
                run,
                bundles=settings.bundles,
                device=settings.device,
                precision=plan.precision,
            )
        else:
            directories = [settings.bundles / digest for digest in run.pins.values()]
            with clock("start"):
                engine = Int8Engine(directories, RUNTIMES[plan.runtime], Path(plan.quantised))
        counts = tag_shard(here.store, engine, run, 0, 1, params=here.params, inbox=settings.inbox)
    if counts["deferred"]:
        raise RuntimeError(f"a measurement must tag every picture: {counts}")
