"""One installation, opened once per command, Airflow task or night."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..config.last_good import load_or_last_good
from ..config.params import Params, load
from ..config.settings import Settings
from ..store.store import Store
from ..tracking.registry import Registry
from .restore import settle


@dataclass(frozen=True)
class Installation:
    """What a command works with; inner functions are given the parts they use."""

    settings: Settings
    params: Params
    store: Store
    registry: Registry
    params_fault: str | None = None  # what is wrong with params.yaml, where older ones are used


@contextmanager
def opened(settings: Settings, *, unattended: bool = False) -> Iterator[Installation]:
    """Read params.yaml and open the store and the registry; the store is closed at the end.

    Neither is connected to before its first use, so a command that needs only one of them works
    while the other is away. A restore that was killed is completed or undone first. Raises
    ParamsError for a params.yaml that is missing or wrong, and BackupError during a restore. What
    runs `unattended` goes by the last good params.yaml meanwhile, and `params_fault` says so.
    """
    settle(settings)
    params, fault = (
        load_or_last_good(settings) if unattended else (load(settings.params_file), None)
    )
    with Store(settings.store_url) as store:
        registry = Registry(settings.tracking_uri, settings.artifacts, settings.mlflow_url)
        yield Installation(settings, params, store, registry, fault)
