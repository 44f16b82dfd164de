"""How a first version did by itself, as its stages left it: there is no champion to meet."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..config.settings import Settings
from ..pipeline.dvc_files import outputs
from ..pipeline.plan import Plan
from ..pipeline.repro import materialised

SHEET = "validation_sheet.png"


@dataclass(frozen=True)
class ByItself:
    """The metrics of the validation side, as `evaluate` writes them, and its contact sheet."""

    validation: Mapping[str, Any]
    sheet: bytes | None


def by_itself(settings: Settings, plan: Plan, group: str) -> ByItself:
    """Read the evaluation of a trained group from the plan's checkout; no model runs."""
    stage = f"evaluate@{group}"
    with materialised(settings, plan, stage) as checkout:
        files = outputs(checkout, stage)
        metrics = json.loads(files[f"{group}.json"].read_text(encoding="utf-8"))
        sheet = files["figures"] / SHEET
        return ByItself(metrics["validation"], sheet.read_bytes() if sheet.is_file() else None)
