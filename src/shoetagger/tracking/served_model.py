"""The registered model as MLflow runs it: a script, copied into every version.

It must not import its own package, which may be missing or of another age where a model is served.
Beside it in a version lie a bundle and the sources of the code that reads it. They are imported
under a name made from their digest, so that versions with different code work in one process.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

_BATCH = 32  # images per forward pass; bounds the memory, changes no result


class _UncachedLoader(SourceFileLoader):
    """Neither reads nor writes `__pycache__`: the folder is a part of the registered model."""

    def path_stats(self, path: str) -> NoReturn:
        # How SourceLoader.get_code learns that there is no bytecode for a source.
        raise OSError(f"{path} is not cached")


def load_core(folder: Path) -> str:
    """Import the sources below a folder as one package, once per process, and return its name.

    Nothing is written to the folder, and it may go away afterwards. Threads may load at once.
    """
    sources = {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*.py"))}
    digest = hashlib.sha256()
    for path, source in sources.items():
        digest.update(f"{path.as_posix()} {len(source)}\n".encode() + source)
    package = f"shoetagger_{digest.hexdigest()[:16]}"
    try:
        _import_package(package, folder, {folder / path.parent for path in sources})
        for path in sources:  # all of them now: the folder may go away
            if path.name != "__init__.py":
                importlib.import_module(".".join((package, *path.with_suffix("").parts)))
    except BaseException:
        # What was imported looks for the rest in this folder; the next try may have another.
        for name in [name for name in sys.modules if f"{name}.".startswith(f"{package}.")]:
            sys.modules.pop(name, None)
        raise
    return package


def _import_package(name: str, folder: Path, subfolders: set[Path]) -> None:
    """Import a folder as package `name`, unless this process has it, without its modules."""
    if name in sys.modules:
        return
    for place in subfolders:  # the import system asks these finders for the package's modules
        finder = FileFinder(str(place), (_UncachedLoader, SOURCE_SUFFIXES))
        sys.path_importer_cache[str(place)] = finder
    init = str(folder / "__init__.py")
    spec = spec_from_file_location(
        name,
        init,
        loader=_UncachedLoader(name, init),
        submodule_search_locations=[str(folder)],
    )
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    if sys.modules.setdefault(name, module) is module:  # no other thread was faster
        spec.loader.exec_module(module)


class TagPictures(PythonModel):  # type: ignore[misc, unused-ignore]
    """Gives each image its tags, a score per tag, and the reason where it is rejected."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the bundle; `model_config` gives the device and the limits of an image."""
        config = context.model_config
        core = load_core(Path(context.artifacts["code"]))
        self._decode = importlib.import_module(f"{core}.images.decode")
        self._views = importlib.import_module(f"{core}.images.views")
        self._limits = self._decode.Limits(config["max_bytes"], config["max_pixels"])
        bundle = Path(context.artifacts["bundle"])
        engine = importlib.import_module(f"{core}.inference.engine")
        self._engine = engine.Engine([bundle], config["device"])

    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002 - what it gives was read in load_context
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,  # noqa: ARG002 - MLflow's, and there are none
    ) -> pd.DataFrame:
        """Tag the encoded images in column `image`; a bad one never stops the others."""
        images = list(model_input["image"])
        parts = [self._tag(images[i : i + _BATCH]) for i in range(0, len(images), _BATCH)]
        rows = [row for part in parts for row in part]
        (bundle,) = self._engine.bundles
        columns: dict[str, pd.Series[Any]] = {
            name: pd.Series([row[name] for row in rows], dtype=object)
            for name in ("tags", "rejected", *bundle.tags)
        }
        for tag in bundle.tags:
            # A missing score is null, not NaN, which JSON does not have.
            if not columns[tag].isna().any():
                columns[tag] = columns[tag].astype(float)
        return pd.DataFrame(columns).set_index(model_input.index)

    def _tag(self, images: list[object]) -> list[dict[str, Any]]:
        (bundle,) = self._engine.bundles
        views: list[Any] = []
        reasons: list[str | None] = []
        for image in images:
            view, reason = self._view(image)
            reasons.append(reason)
            if reason is None:
                views.append(view)
        predictions = iter(self._predictions(views))
        rows: list[dict[str, Any]] = []
        for reason in reasons:
            scores, tags = ((None,) * len(bundle.tags), ())
            if not reason:
                prediction = next(predictions)
                scores, tags = prediction.scores, prediction.tags
            scored = dict(zip(bundle.tags, scores, strict=True))
            rows.append({"tags": list(tags), "rejected": reason, **scored})
        return rows

    def _view(self, image: object) -> tuple[Any, str | None]:
        """Return what the model sees of an image, or why it is rejected."""
        if not isinstance(image, bytes | bytearray | memoryview):
            return None, f"not the bytes of a picture but {type(image).__name__}"
        (transform,) = self._engine.transforms
        try:
            opened = self._decode.open_image(bytes(image), self._limits, longest=transform.longest)
            return self._views.tagging_view(opened, transform), None
        except self._decode.Rejected as rejected:
            return None, str(rejected)
        except MemoryError:
            return None, "takes more memory to decode than there is"

    def _predictions(self, views: list[Any]) -> list[Any]:
        if not views:
            return []
        (bundle,) = self._engine.bundles
        by_bundle = self._engine.predict({bundle.transform: np.stack(views)})
        predictions: list[Any] = by_bundle[bundle.digest]
        return predictions


set_model(TagPictures())
