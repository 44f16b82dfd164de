"""Registered models: their versions and aliases, and the bundles in them."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from ..config.settings import redacted
from ..errors import ShoetaggerError
from .connection import Connection, page
from .packaging import OWN_COLUMNS, write_file
from .registration import create_version, log_model, model_name, run_of
from .version_files import FOLDER

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

    from ..images.decode import Limits
    from ..inference.bundle import Bundle
    from .trainings import Training


CHAMPION, CHALLENGER = "champion", "challenger"


class RegistryError(ShoetaggerError):
    """A version is missing, or a bundle is not the one that its version names."""


@dataclass(frozen=True)
class Version:
    """One version of a group's registered model."""

    group: str
    name: str
    number: str
    digest: str  # of its bundle
    aliases: tuple[str, ...]
    run_id: str | None  # MLflow's, of the run that trained it
    tags: Mapping[str, str]


class Registry:
    """The registered models of all groups.

    Every method calls MLflow, but `fetch` of a cached bundle, and raises MLflowUnavailable where
    MLflow does not answer, MLflowRefused where it refuses.
    """

    def __init__(self, tracking_uri: str, artifacts: Path, pages: str | None = None) -> None:
        """`artifacts` is where a database, or the server of `make up`, keeps its models.

        `pages` is the address at which people open MLflow, where it is another one.
        """
        self._artifacts, self._uri, self._pages = artifacts, tracking_uri, pages
        self._mlflow = Connection(tracking_uri, artifacts, seconds=60)

    @property
    def address(self) -> str:
        """Where the registry is, as messages may show it: without a password."""
        return redacted(self._uri)

    def register(
        self,
        directory: Path,
        *,
        limits: Limits,
        tags: Mapping[str, str],
        metrics: Mapping[tuple[str, ...], float],
        figures: Path | None = None,
        card: str = "",
        training: Training | None = None,
    ) -> Version:
        """Make the bundle in `directory` a version of its group's model, once per digest.

        The version belongs to the run that trained the weights (tag `weights_sha256`), or to a new
        one under `training` that gets `tags`, `metrics` and the files in `figures`. The version
        itself gets `tags`, `metrics` and, as its description, the model card in Markdown; `limits`
        bound the images that a served model accepts. Raises RegistryError for a bundle that cannot
        be served.
        """
        bundle = _checked(directory)
        lock = self._artifacts / ".register.lock"
        with self._mlflow.open() as (client, experiment), _exclusively(lock):
            if (known := _first_with(client, bundle.group, bundle.digest)) is not None:
                return _version(known, _aliases(client, bundle.group))
            run_id = run_of(client, experiment, bundle, tags, figures, training)
            origin = {
                **{key: str(value) for key, value in tags.items()},
                "tags": ", ".join(bundle.tags),  # by their names: metrics may have theirs escaped
                "bundle_digest": bundle.digest,
                "weights_sha256": bundle.weights_sha256,
            }
            model = log_model(
                client, experiment, run_id, bundle, directory, limits, origin, metrics
            )
            created = create_version(client, bundle.group, model, run_id, origin, card)
            # The lock works within one machine. Between two, the first version stays.
            first = _first_with(client, bundle.group, bundle.digest) or created
            if first.version != created.version:
                client.delete_model_version(created.name, str(created.version))
            return _version(first, _aliases(client, bundle.group))

    def versions(self, group: str) -> list[Version]:
        """Return all versions of a group, in order of registration."""
        with self._mlflow.open() as (client, _):
            aliases = _aliases(client, group)
            found = client.search_model_versions(f"name = '{model_name(group)}'")
            bundles = [v for v in found if "bundle_digest" in v.tags]
            return [_version(v, aliases) for v in sorted(bundles, key=lambda v: int(v.version))]

    def version_with(self, group: str, digest: str) -> Version | None:
        """Return the first version of a group with this bundle, or None; one search by its tag."""
        with self._mlflow.open() as (client, _):
            found = _first_with(client, group, digest)
            return None if found is None else _version(found, _aliases(client, group))

    def by_alias(self, group: str, alias: str) -> Version | None:
        """Return the version that an alias points to, or None."""
        with self._mlflow.open() as (client, _):
            number = _aliases(client, group).get(alias)
        return None if number is None else self.by_number(group, number)

    def by_number(self, group: str, number: str) -> Version | None:
        """Return a version by its number, or None."""
        from mlflow.exceptions import MlflowException

        with self._mlflow.open() as (client, _):
            try:
                found = client.get_model_version(model_name(group), number)
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return None
                raise
            return _version(found, _aliases(client, group))

    def set_alias(self, group: str, alias: str, number: str) -> None:
        """Point an alias to a version, wherever it pointed before."""
        with self._mlflow.open() as (client, _):
            client.set_registered_model_alias(model_name(group), alias, number)

    def drop_alias(self, group: str, alias: str) -> None:
        """Remove an alias; one that is not there is no error."""
        with self._mlflow.open() as (client, _):
            if alias in _aliases(client, group):
                client.delete_registered_model_alias(model_name(group), alias)

    def log_files(self, version: Version, files: Mapping[str, bytes]) -> None:
        """Put files that belong to a version into its run, in place of files of the same names."""
        if version.run_id is None:  # registered by someone else
            return
        with TemporaryDirectory() as scratch:
            for name, data in files.items():
                write_file(Path(scratch) / name, data)
            with self._mlflow.open() as (client, _):
                client.log_artifacts(version.run_id, scratch, _folder(version))

    def read_file(self, version: Version, name: str) -> bytes | None:
        """Return a file that `log_files` put into a version's run; None where there is none."""
        if version.run_id is None:
            return None
        path = f"{_folder(version)}/{name}"
        with TemporaryDirectory() as scratch, self._mlflow.open() as (client, _):
            listed = client.list_artifacts(version.run_id, _folder(version))
            if path not in [found.path for found in listed]:
                return None
            downloaded = client.download_artifacts(version.run_id, path, scratch)
            return Path(downloaded).read_bytes()

    def page_of(self, version: Version, name: str) -> str | None:
        """Return the address at which MLflow's UI shows a version's file; None without a server."""
        address = self._pages or self.address
        if version.run_id is None or not address.startswith(("http://", "https://")):
            return None
        with self._mlflow.open() as (client, _):
            experiment = client.get_run(version.run_id).info.experiment_id
        place = f"experiments/{experiment}/runs/{version.run_id}/artifacts/{_folder(version)}"
        return page(redacted(address), f"{place}/{name}")

    def fetch(self, version: Version, cache: Path) -> Path:
        """Return a folder with the bundle of a version, `cache`/<digest>; download it if needed.

        An intact bundle in the cache is used without a call to MLflow. Raises RegistryError where
        the registry has another bundle than the version names.
        """
        target = cache / version.digest
        if has_intact_bundle(target, version.digest):
            return target
        scratch = cache / f".{uuid.uuid4().hex}"
        scratch.mkdir(parents=True)
        try:
            with self._mlflow.open() as (client, _):
                from mlflow.artifacts import download_artifacts

                source = client.get_model_version_download_uri(version.name, version.number)
                downloaded = download_artifacts(
                    f"{source}/artifacts/bundle", dst_path=str(scratch), tracking_uri=self._uri
                )
            if not has_intact_bundle(Path(downloaded), version.digest):
                raise RegistryError(
                    f"version {version.number} of {version.name} is registered with bundle "
                    f"{version.digest[:12]}, but its files are another or are damaged: register "
                    "the model again and promote that version"
                )
            if target.exists() and not has_intact_bundle(target, version.digest):
                shutil.rmtree(target)
            try:
                Path(downloaded).rename(target)
            except OSError:
                if not has_intact_bundle(
                    target, version.digest
                ):  # another process was not the faster one
                    raise
        finally:
            shutil.rmtree(scratch)
        return target


@contextmanager
def _exclusively(lock: Path) -> Iterator[None]:
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(lock, timeout=600).acquire()
    except Timeout:
        raise RegistryError(
            "another process has been registering a model for ten minutes: wait for it or end it"
        ) from None
    with held:
        yield


def _folder(version: Version) -> str:
    """Return the folder of a version's files in its run, which other versions may share."""
    return f"{FOLDER}/{version.number}"


def _checked(directory: Path) -> Bundle:
    """Read a bundle that is about to be registered, and refuse one that cannot be served."""
    from ..inference.bundle import load_bundle
    from ..network.digests import file_sha256
    from ..network.layers import WEIGHTS_FILE

    bundle = load_bundle(directory)
    weights = directory / WEIGHTS_FILE
    if not weights.is_file() or file_sha256(weights) != bundle.weights_sha256:
        raise RegistryError(
            f"{weights} is not the file that the bundle beside it describes: run `dvc repro`"
        )
    taken = set(bundle.tags) & set(OWN_COLUMNS)
    if taken:
        raise RegistryError(
            f"group {bundle.group}: a tag called {taken.pop()!r} cannot be served, for that is a "
            "column of every answer; rename it"
        )
    return bundle


def has_intact_bundle(directory: Path, digest: str) -> bool:
    """Tell whether a folder holds the whole bundle of this digest, undamaged."""
    from ..inference.bundle import load_bundle
    from ..network.digests import file_sha256
    from ..network.layers import WEIGHTS_FILE, ModelError

    try:
        bundle = load_bundle(directory)
        whole = file_sha256(directory / WEIGHTS_FILE) == bundle.weights_sha256
    except (ModelError, FileNotFoundError):
        return False
    return whole and bundle.digest == digest


def _aliases(client: MlflowClient, group: str) -> dict[str, str]:
    """Return the aliases of a group's model, each with a version number."""
    from mlflow.exceptions import MlflowException

    try:
        aliases = client.get_registered_model(model_name(group)).aliases
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return {}
        raise
    return {alias: str(number) for alias, number in aliases.items()}


def _version(found: ModelVersion, aliases: Mapping[str, str]) -> Version:
    number = str(found.version)
    if "bundle_digest" not in found.tags:
        raise RegistryError(
            f"version {number} of {found.name} holds no bundle of this project: "
            "point the alias to a version that training registered"
        )
    return Version(
        group=found.name.removeprefix(model_name("")),
        name=found.name,
        number=number,
        digest=found.tags["bundle_digest"],
        aliases=tuple(sorted(alias for alias, to in aliases.items() if to == number)),
        run_id=found.run_id or None,
        tags=dict(found.tags),
    )


def _first_with(client: MlflowClient, group: str, digest: str) -> ModelVersion | None:
    """Return the first version with this bundle, or None."""
    where = f"name = '{model_name(group)}' and tags.bundle_digest = '{digest}'"
    return min(client.search_model_versions(where), key=lambda v: int(v.version), default=None)
