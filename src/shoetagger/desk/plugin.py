"""The desk in Airflow's UI: a button on its left bar, and the application behind its login."""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin

PREFIX = "/pictures"


class PictureDesk(AirflowPlugin):
    """Puts the picture desk into Airflow; installing the package is enough (entry point)."""

    name = "pictures"
    external_views = [  # noqa: RUF012 - as Airflow reads it
        {
            "name": "Pictures",
            "href": f"{PREFIX}/",
            "destination": "nav",
            "url_route": "pictures",
            "nav_top_level": True,
        }
    ]

    @property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]  # made when read
        """The application; imported late, since every process of Airflow imports its plugins."""
        from ..config.settings import Settings
        from .access import person
        from .app import create
        from .gallery import Gallery

        app = create(lambda: Gallery(Settings.from_environment()), person)
        return [{"name": "pictures", "app": app, "url_prefix": PREFIX}]
