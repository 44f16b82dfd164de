"""The registered model as MLflow runs it: a script, copied into every version.

It must not import its own package, which may be missing where a model is served, or of another
age. Beside it in a version lie a bundle and the sources of the core that read it. They are imported
under a name made from their digest, so that versions with different code live in one process.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

_BATCH = 32  # pictures a forward pass; bounds the memory, not the answer


def load_core(folder: Path) -> str:
    """Import the sources below a folder as one package, once a process, and return its name."""
    sources = sorted(folder.rglob("*.py"))
    digest = hashlib.sha256()
    for path in sources:
        source = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()} {len(source)}\n".encode() + source)
    package = f"shoetagger_{digest.hexdigest()[:16]}"
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # the folder is a part of the registered model
    try:
        if package not in sys.modules:
            _import_package(package, folder)
        for path in sources:  # all of them now: the folder may go away
            if path.name != "__init__.py":
                parts = path.relative_to(folder).with_suffix("").parts
                importlib.import_module(".".join((package, *parts)))
    finally:
        sys.dont_write_bytecode = before
    return package


def _import_package(name: str, folder: Path) -> None:
    spec = spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = module_from_spec(spec)
    spec.loader.exec_module(module)


class TagPictures(PythonModel):  # type: ignore[misc, unused-ignore]
    """Answers for each picture its tags, why it was rejected if it was, and a score a tag."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the bundle; `model_config` gives the device and the limits of a picture."""
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
        """Tag the encoded pictures in column `image`; a bad one never stops the others."""
        pictures = list(model_input["image"])
        parts = [self._tag(pictures[i : i + _BATCH]) for i in range(0, len(pictures), _BATCH)]
        rows = [row for part in parts for row in part]
        (bundle,) = self._engine.bundles
        columns: dict[str, pd.Series[Any]] = {
            name: pd.Series([row[name] for row in rows], dtype=object)
            for name in ("tags", "rejected", *bundle.tags)
        }
        for tag in bundle.tags:
            # What has no score says null, not NaN, which JSON does not know.
            if not columns[tag].isna().any():
                columns[tag] = columns[tag].astype(float)
        return pd.DataFrame(columns).set_index(model_input.index)

    def _tag(self, pictures: list[object]) -> list[dict[str, Any]]:
        (bundle,) = self._engine.bundles
        views: list[Any] = []
        reasons: list[str | None] = []
        for picture in pictures:
            view, reason = self._view(picture)
            reasons.append(reason)
            if reason is None:
                views.append(view)
        answers = iter(self._answers(views))
        rows: list[dict[str, Any]] = []
        for reason in reasons:
            scores, tags = ((None,) * len(bundle.tags), ()) if reason else next(answers)
            scored = dict(zip(bundle.tags, scores, strict=True))
            rows.append({"tags": list(tags), "rejected": reason, **scored})
        return rows

    def _view(self, picture: object) -> tuple[Any, str | None]:
        """Return what the model sees of a picture, or why it is rejected."""
        if not isinstance(picture, bytes | bytearray | memoryview):
            return None, f"not the bytes of a picture but {type(picture).__name__}"
        (transform,) = self._engine.transforms
        try:
            opened = self._decode.open_picture(bytes(picture), self._limits, longest=transform.size)
            return self._views.tagging_view(opened, transform), None
        except self._decode.Rejected as rejected:
            return None, str(rejected)
        except MemoryError:
            return None, "takes more memory to decode than there is"

    def _answers(self, views: list[Any]) -> list[Any]:
        if not views:
            return []
        import numpy as np

        (bundle,) = self._engine.bundles
        answers: list[Any] = self._engine.predict({bundle.transform: np.stack(views)})[
            bundle.digest
        ]
        return answers


set_model(TagPictures())
