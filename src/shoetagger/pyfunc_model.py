"""The registered model as MLflow runs it: a script, copied into every version.

It must not import its own package, which may be missing where a model is served, or of another
age. Beside it in a version lie a bundle and the sources of the core that read it. They are imported
under a name made from their digest, so that versions with different code live in one process.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Sequence
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

_BATCH = 32  # pictures a forward pass; bounds the memory, not the answer


class Core(MetaPathFinder, InspectLoader):
    """Imports the sources in a folder as one package, from memory: the folder may go away."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sources = {path.stem: path.read_bytes() for path in sorted(folder.glob("*.py"))}
        digest = hashlib.sha256()
        for name, source in self._sources.items():
            digest.update(f"{name} {len(source)}\n".encode() + source)
        self.package = f"shoetagger_{digest.hexdigest()[:16]}"

    def modules(self) -> dict[str, ModuleType]:
        """Import every module, once a process, and return them by name."""
        if self.package not in sys.modules:
            sys.meta_path.append(self)
        names = [name for name in self._sources if name != "__init__"]
        return {name: importlib.import_module(f"{self.package}.{name}") for name in names}

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - the import system gives it
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        if fullname == self.package or self._name(fullname) in self._sources:
            return spec_from_loader(fullname, self, is_package=fullname == self.package)
        return None

    def get_source(self, fullname: str) -> str:
        return self._sources[self._name(fullname)].decode()

    def get_code(self, fullname: str) -> CodeType:
        place = self._folder / f"{self._name(fullname)}.py"
        return compile(self.get_source(fullname), place, "exec", dont_inherit=True)

    def _name(self, fullname: str) -> str:
        """Return a module's name within the package; "" where it is none of this package."""
        if fullname == self.package:
            return "__init__"
        package, _, name = fullname.rpartition(".")
        return name if package == self.package else ""


class TagPictures(PythonModel):  # type: ignore[misc, unused-ignore]
    """Answers for each picture its tags, why it was rejected if it was, and a score a tag."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the bundle; `model_config` gives the device and the limits of a picture."""
        config = context.model_config
        self._core = Core(Path(context.artifacts["code"])).modules()
        self._limits = self._core["images"].Limits(config["max_bytes"], config["max_pixels"])
        bundle = Path(context.artifacts["bundle"])
        self._engine = self._core["engine"].Engine([bundle], config["device"])

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
        images = self._core["images"]
        if not isinstance(picture, bytes | bytearray | memoryview):
            return None, f"not the bytes of a picture but {type(picture).__name__}"
        (transform,) = self._engine.transforms
        try:
            opened = images.open_picture(bytes(picture), self._limits, longest=transform.size)
            return images.tagging_view(opened, transform), None
        except images.Rejected as rejected:
            return None, str(rejected)
        except MemoryError:
            return None, "takes more memory to decode than there is"

    def _answers(self, views: list[Any]) -> list[Any]:
        if not views:
            return []
        import numpy as np

        (bundle,) = self._engine.bundles
        answers: list[Any] = self._engine.answer({bundle.transform: np.stack(views)})[bundle.digest]
        return answers


set_model(TagPictures())
