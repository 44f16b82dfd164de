"""Takes the pictures of the desk that the documents show: `python tests/take_pictures.py FOLDER`.

Makes an installation of the demo in a fresh clone, with drawn shoes only, and walks through the
whole loop in Debian's chromium, as test_what_people_label_in_a_browser_makes_the_next_models does.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

REPO = Path(__file__).parents[1]
sys.path.insert(0, str(REPO / "tests"))

from helpers import desk_loop  # noqa: E402 - found through the line above
from playwright.sync_api import sync_playwright  # noqa: E402

from shoetagger.config import params  # noqa: E402
from shoetagger.demo import __main__ as demo  # noqa: E402
from shoetagger.ops.environment import Ports  # noqa: E402
from shoetagger.ops.servers import down  # noqa: E402


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["SHOETAGGER_USERS"] = desk_loop.PEOPLE
    with tempfile.TemporaryDirectory() as work, sync_playwright() as playwright:
        settings = desk_loop.clone(REPO, Path(work))
        ports = Ports.from_environment()
        try:
            demo.demo(settings, ports, print)
            desk_loop.train_quickly(settings)
            groups = tuple(params.load(settings.params_file).groups)
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox"]
            )
            desk_loop.walk(desk_loop.Walk(settings, ports, browser, groups, folder))
        finally:
            down(settings, print)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
