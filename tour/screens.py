"""The screens of the tour, each as somebody gets there."""

from __future__ import annotations

from collections.abc import Mapping

from mlflow import MlflowClient
from playwright.sync_api import Page

from shoetagger.demo.airflow_api import TaskState
from shoetagger.tracking.connection import EXPERIMENT

from .approval import address
from .browser import cards, desk_of
from .labelling import check
from .visit import TRAINING, Visit

_CHECKED = 16  # pictures that a person checks
PHONE = {"width": 390, "height": 844}  # pixels
_HEAT_MAP = 120_000  # milliseconds, for a process that loads the models
_TALL = 1150  # pixels, for what has to be scrolled through otherwise
_WHOLE = 1900


# --- Airflow ---


def airflow_itself(visit: Visit, run: str) -> None:
    """Home, DAGs, the graph of a training's run, and the form that starts one."""
    page = visit.in_airflow()
    page.get_by_text("Active Dags").wait_for()
    visit.camera.take(page, "airflow-home")
    page.goto(visit.airflow_page("dags"))
    page.get_by_role("button", name="Show table view").click()
    page.get_by_role("link", name=TRAINING).first.wait_for()
    visit.camera.take(page, "airflow-dags", height=660)
    _graph(visit, run)
    page.goto(visit.airflow_page(f"dags/{TRAINING}"))
    _form(visit, page, "airflow-form")
    page.context.close()


def _graph(visit: Visit, run: str) -> None:
    """The graph from top to bottom: in a row, its words would be too small to read."""
    page = visit.in_airflow(viewport={"width": 900, "height": 1300})
    page.goto(visit.airflow_page(f"dags/{TRAINING}/runs/{run}"))
    page.get_by_role("button", name="Show Graph").click()
    page.get_by_role("button", name="Expand all task groups").click()
    page.get_by_role("button", name="Collapse Details Panel").click()
    page.get_by_role("button", name="Options").click()
    page.get_by_role("combobox").filter(has_text="Left to Right").click()
    page.get_by_role("option", name="Top to Bottom").click()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="fit view").click()
    visit.camera.take(page, "airflow-graph")
    page.context.close()


def rollback_form(visit: Visit) -> None:
    page = visit.in_airflow()
    page.goto(visit.airflow_page("dags/roll_back_tag_model"))
    _form(visit, page, "airflow-rollback")
    page.context.close()


def _form(visit: Visit, page: Page, name: str) -> None:
    page.get_by_role("button", name="Trigger").first.click()
    page.get_by_text("Run Parameters").wait_for()
    visit.camera.take(page, name, height=_TALL)


def approval(visit: Visit, run: str, task: TaskState) -> None:
    """What a person who is asked sees: the approval, and the page of the desk."""
    page = visit.in_airflow()
    page.goto(address(visit, run, task))
    page.get_by_role("button", name="Approve").wait_for()
    on_desk = page.get_by_role("link", name="on the desk").get_attribute("href")
    visit.camera.take(page, "airflow-approval", height=_WHOLE)
    page.goto(on_desk or "")
    desk_of(page)
    visit.camera.take(page, "desk-challenger", height=_TALL)
    page.context.close()


def comparison(visit: Visit, report: str) -> None:
    """The comparison, a file in MLflow at the address `report`, in light and in dark."""
    for scheme, name in (("light", "comparison"), ("dark", "comparison-dark")):
        page = visit.in_mlflow(color_scheme=scheme)
        page.goto(report)
        page.frame_locator("iframe").get_by_role("heading", level=1).wait_for()
        # Around it, MLflow shows where on the disk the file is.
        visit.camera.take(page, name, height=_WHOLE, part=page.locator("iframe"))
        page.context.close()


# --- MLflow ---


def mlflow_itself(visit: Visit, group: str) -> None:
    """The latest training's run, the metrics of the demo's run of a group, and its new version."""
    client = MlflowClient(visit.newcomer.settings.tracking_uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    place = f"experiments/{experiment.experiment_id}/runs"
    runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
    trainings = [r.info.run_id for r in runs if r.info.run_name.startswith("training ")]
    of_group = [r.info.run_id for r in runs if r.info.run_name == f"train {group}"]
    page = visit.in_mlflow()
    page.goto(visit.mlflow_page(f"{place}/{trainings[-1]}"))
    page.get_by_role("link", name=f"train {group}").wait_for()
    visit.camera.take(page, "mlflow-training")
    page.goto(visit.mlflow_page(f"{place}/{of_group[0]}/model-metrics"))
    page.get_by_text(f"train {group} (loss/train)").first.wait_for()
    visit.camera.take(page, "mlflow-metrics", height=_TALL)
    page.goto(visit.mlflow_page(f"models/shoetagger-{group}/versions/2"))
    page.get_by_text("How far to trust each tag").wait_for()
    visit.camera.take(page, "mlflow-model", height=_TALL)
    page.context.close()


# --- published pages ---


def published_pages(visit: Visit) -> None:
    """The page of the latest day, and the same on a phone in dark mode."""
    folder = visit.newcomer.settings.published / "pages"
    index = visit.outside()
    index.goto((folder / "index.html").as_uri())
    index.locator('a[href$="/001.html"]').first.click()
    index.locator(".pictures img").first.wait_for()
    visit.camera.take(index, "pages-day")
    phone = visit.outside(viewport=PHONE, color_scheme="dark")
    phone.goto(index.url)
    visit.camera.take(phone, "pages-phone")
    for page in (index, phone):
        page.context.close()


# --- the desk ---


def labelling(visit: Visit, truth: Mapping[str, frozenset[str]]) -> None:
    """The queue; then, once a person has checked some of it, the quality.

    `truth` is what the pictures show, by the names of their files.
    """
    page = visit.in_airflow()
    page.goto(visit.airflow_page("plugin/pictures/pictures/queue"))
    desk = desk_of(page)
    cards(desk).nth(1).focus()
    visit.camera.take(page, "desk-queue")
    check(page, desk, truth, _CHECKED)
    page.goto(visit.airflow_page("plugin/pictures/pictures/quality"))
    desk_of(page)
    visit.camera.take(page, "desk-quality")
    page.context.close()


def desk(visit: Visit) -> None:
    """The gallery, one picture, and the heat map of a score."""
    page = visit.in_airflow()
    page.goto(visit.airflow_page("plugin/pictures/pictures/"))
    gallery = desk_of(page)
    chosen = cards(gallery).nth(2)
    chosen.focus()
    gallery.evaluate("() => window.scrollTo(0, 0)")
    visit.camera.take(page, "desk", height=1000)
    chosen.locator(".look").click()
    gallery.wait_for_url("**/picture/**")
    gallery.locator("#single img").evaluate("image => image.decode()")
    visit.camera.take(page, "desk-picture", height=_TALL)
    gallery.get_by_role("link", name="Why these scores?").click()
    gallery.wait_for_url("**/why**", timeout=_HEAT_MAP)
    gallery.locator("img.heat").evaluate("image => image.decode()")
    visit.camera.take(page, "desk-why")
    page.context.close()


def audit(visit: Visit) -> None:
    """The findings of `shoetagger audit`."""
    page = visit.in_airflow()
    page.goto(visit.airflow_page("plugin/pictures/pictures/audit"))
    desk_of(page)
    visit.camera.take(page, "desk-audit", height=_TALL)
    page.context.close()
