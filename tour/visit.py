"""Somebody in a browser, in an installation that a newcomer has made."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from playwright.sync_api import Browser, Page

from shoetagger.demo.airflow_api import Airflow
from shoetagger.tracking.login import read_login

from .browser import PATIENCE, log_in
from .camera import Camera
from .newcomer import Newcomer, TourError

PERSON = "ann"
TRAINING, TAGGING = "train_tag_models", "tag_new_images"
_WINDOW = {"width": 1280, "height": 800}  # pixels
# MLflow opens its assistant, and praises its registry, when somebody comes for the first time.
_SEEN_BEFORE = """
localStorage.setItem("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true");
localStorage.setItem("mlflow.assistant.panelOpen_v1", "false");
"""


@dataclass
class Visit:
    """A browser, a camera, and an installation whose servers run."""

    newcomer: Newcomer
    browser: Browser
    camera: Camera

    @cached_property
    def airflow(self) -> Airflow:
        return Airflow(self.newcomer.settings, self.newcomer.ports)

    def in_airflow(self, **options: Any) -> Page:
        """Return a page on which a person has logged in to Airflow."""
        newcomer = self.newcomer
        options = {"viewport": _WINDOW, **options}
        return log_in(self.browser, newcomer.ports, newcomer.passwords, PERSON, **options)

    def in_mlflow(self, **options: Any) -> Page:
        """Return a page to which MLflow's server answers."""
        login = read_login(self.newcomer.settings.artifacts)
        if login is None:
            raise TourError("MLflow's server has no login: it was not started by `make up`")
        credentials = {"username": login.user, "password": login.password}
        options = {"viewport": _WINDOW, **options}
        context = self.browser.new_context(**options, http_credentials=credentials)
        context.add_init_script(_SEEN_BEFORE)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        return page

    def outside(self, **options: Any) -> Page:
        """Return a page without a login, for the published files."""
        return self.browser.new_context(**{"viewport": _WINDOW, **options}).new_page()

    def airflow_page(self, path: str) -> str:
        return f"{self.newcomer.ports.airflow_url}/{path}"

    def mlflow_page(self, path: str) -> str:
        return f"{self.newcomer.ports.mlflow_page}/#/{path}?workflowType=machine_learning"
