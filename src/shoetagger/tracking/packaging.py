"""Writes a bundle, with the code that reads it, as an MLflow model."""

from __future__ import annotations

import ast
import importlib.metadata
import io
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..network.layers import library_of

if TYPE_CHECKING:
    from ..images.decode import Limits
    from ..inference.bundle import Bundle


# The code that a registered model runs, copied into every version.
_SERVED = ("errors.py", "atomic.py", "images", "network", "inference")

# Columns of a registered model's output that are not scores.
OWN_COLUMNS = ("tags", "rejected")

# Packages whose name on the index is not the name of their module.
_DISTRIBUTIONS = {
    "PIL": "pillow",
    "ai_edge_litert": "ai-edge-litert",
    "pillow_heif": "pillow-heif",
    "yaml": "pyyaml",
}


def served_sources() -> dict[str, bytes]:
    """Return the source files of this package that a registered model needs, by their paths."""
    package = Path(__file__).parents[1]
    found = [package / "__init__.py"]
    for name in _SERVED:
        found += [package / name] if name.endswith(".py") else (package / name).glob("*.py")
    return {path.relative_to(package).as_posix(): path.read_bytes() for path in sorted(found)}


def requirements(bundle: Bundle) -> list[str]:
    """Return what a model needs from the package index, pinned to this environment.

    That is what its code imports; timm only where its backbone is one of timm's, and what runs a
    detector only where it has one.
    """
    imported = {name for source in served_sources().values() for name in _imports(source)}
    if library_of(bundle.arch) != "timm":
        imported.discard("timm")
    if bundle.transform.detector is None:
        imported.discard("ai_edge_litert")
    names = {_DISTRIBUTIONS.get(name, name) for name in imported - sys.stdlib_module_names}
    pinned = {name: importlib.metadata.version(name) for name in names | {"mlflow", "pandas"}}
    # A local part such as +cpu is not on the index.
    return [f"{name}=={version.partition('+')[0]}" for name, version in sorted(pinned.items())]


def _imports(source: bytes) -> set[str]:
    """Return the top-level packages that a source imports when it runs, except this one."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def save_model(bundle: Bundle, directory: Path, limits: Limits, model: Any, target: Path) -> None:
    """Write the folder of a pyfunc model: the script, the code that it runs, and the bundle."""
    import mlflow.pyfunc
    import pandas as pd
    from mlflow.models import Model, ModelSignature
    from mlflow.types.schema import Array, ColSpec, DataType, Schema, TensorSpec

    from ..inference.bundle import BUNDLE_FILE
    from ..network.layers import WEIGHTS_FILE

    parts = target.with_name("parts")
    for name, source in served_sources().items():
        write_file(parts / "code" / name, source)
    script = parts / "served_model.py"  # a copy: MLflow records its path
    shutil.copyfile(Path(__file__).with_name(script.name), script)
    (parts / "bundle").mkdir()
    for name in (BUNDLE_FILE, WEIGHTS_FILE):
        shutil.copyfile(directory / name, parts / "bundle" / name)
    output: list[ColSpec | TensorSpec] = [
        ColSpec(Array(DataType.string), "tags"),
        ColSpec(DataType.string, "rejected", required=False),
        *(ColSpec(DataType.double, tag, required=False) for tag in bundle.tags),
    ]
    mlflow.pyfunc.save_model(
        path=target,
        python_model=script,
        artifacts={part: str(parts / part) for part in ("bundle", "code")},
        signature=ModelSignature(Schema([ColSpec(DataType.binary, "image")]), Schema(output)),
        input_example=pd.DataFrame({"image": [_example()]}),
        pip_requirements=requirements(bundle),
        model_config={
            "device": "auto",
            "max_bytes": limits.max_bytes,
            "max_pixels": limits.max_pixels,
        },
        mlflow_model=Model(
            artifact_path=model.artifact_location,
            run_id=model.source_run_id,
            model_id=model.model_id,
        ),
    )


def write_file(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _example() -> bytes:
    """Return a small PNG as the input example of a registered model."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (64, 48), "white")
    ImageDraw.Draw(image).polygon([(8, 14), (22, 14), (30, 26), (56, 32), (56, 38), (8, 38)])
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
