"""The whole loop of labels in real browsers, over an installation that has tagged pictures.

See, correct, undo, label, collect, train, approve: the new version is live.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml
from fastapi.routing import APIRoute
from PIL import Image
from playwright.sync_api import Browser, Frame, Page, expect
from tour.browser import card, cards, desk_of, log_in

from shoetagger.config.settings import Settings
from shoetagger.demo.__main__ import QUICK, follow_tagging
from shoetagger.demo.airflow_api import Airflow
from shoetagger.desk.app import ROUTERS
from shoetagger.ops.environment import Ports, passwords_file, script_path
from shoetagger.store.rows import GroupTags
from shoetagger.store.store import Store

TRAINING, TAGGING, COLLECTING = "train_tag_models", "tag_new_images", "collect_labels"
PEOPLE = "ann:user,bo:user,kim:viewer"
BROKEN = "broken by a file's name"
SCRIPT_NAME = f"<script>document.title = '{BROKEN}'<\u2215script>.jpg"
CHECKED = 10  # pictures that are confirmed, and then collected


def clone(repo: Path, folder: Path) -> Settings:
    """Clone a repo into a folder; collections are pushed to a copy of it, and not to itself."""
    origin, clone = folder / "origin.git", folder / "a clone"
    for source, target, *options in ((repo, origin, "--bare"), (origin, clone)):
        command = ["git", "clone", "--quiet", *map(str, options), str(source), str(target)]
        subprocess.run(command, check=True)
    return Settings.from_environment({"SHOETAGGER_REPO": str(clone)})


def train_quickly(settings: Settings) -> None:
    """Commit parameters by which a training takes seconds; whatever it gives passes the gate."""
    document = yaml.safe_load(settings.params_file.read_text())
    for change in (*QUICK, "train.epochs=1"):
        key, value = change.split("=")
        *sections, name = key.split(".")
        section = document
        for part in sections:
            section = section[part]
        section[name] = yaml.safe_load(value)
    lenient = {
        "macro_f1_margin": 1.0, "tag_f1_margin": 1.0, "tag_f1_floor": 0.0, "min_support": 1,
    }  # fmt: skip
    document["promote"]["rule"] |= lenient
    settings.params_file.write_text(yaml.safe_dump(document, sort_keys=False))
    commit = ["git", "-C", str(settings.repo), "commit", "--quiet", "-am", "Quick models"]
    subprocess.run(commit, check=True)


@dataclass
class Walk:
    """An installation whose servers run, a browser, and what belongs to the walk."""

    settings: Settings
    ports: Ports
    browser: Browser
    groups: tuple[str, ...]

    def __post_init__(self) -> None:
        self.airflow = Airflow(self.settings, self.ports)
        self.passwords: dict[str, str] = json.loads(passwords_file(self.settings).read_text())

    def log_in(self, name: str) -> Page:
        """Return the page of a browser of their own in which somebody has logged in to Airflow."""
        return log_in(self.browser, self.ports, self.passwords, name)

    def tags(self, image_id: str, group: str) -> GroupTags:
        with Store(self.settings.store_url) as store:
            (row,) = store.current.rows(self.groups, image_ids=[image_id])
        return row.groups[group]

    def run(self, *command: str) -> str:
        done = subprocess.run(
            command,
            cwd=self.settings.repo,
            env=os.environ | self.settings.as_environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def walk(w: Walk) -> None:
    """Walk through the whole loop once."""
    nobody_gets_in_without_a_login(w)
    let_a_script_arrive(w)
    ann = w.log_in("ann")
    ann.get_by_role("link", name="Pictures").click()
    desk = desk_of(ann)
    a_choice_can_be_shared(ann, desk)
    image_id, group, tag = correct_by_keyboard(w, ann, desk)
    look_around(ann, image_id)
    the_second_of_two_is_told(w, ann, image_id)
    a_viewer_cannot_write(w)
    a_form_from_mlflow_is_refused(w, ann)

    run = w.airflow.trigger(TAGGING, {})
    w.airflow.follow(TAGGING, run, lambda _: None)
    assert tag in w.tags(image_id, group).tags, "a correction outlives the next night"
    assert tag in exported(w)[image_id][group]
    names_are_text(w, ann)

    confirm_the_queue(w, ann)
    before = set(w.airflow.runs(TRAINING))
    tagged = w.airflow.runs(TAGGING).keys()
    collect(w)
    promoted = train_and_approve(w, ann, before)
    follow_tagging(w.airflow, w.settings, list(w.groups), tagged, lambda _: None)
    ann.goto(f"{w.ports.airflow_url}/plugin/pictures/pictures/picture/{image_id}")
    for name in promoted:
        expect(desk_of(ann).get_by_role("region", name=name)).to_contain_text("version 2")
    assert tag in w.tags(image_id, group).tags, "a correction outlives a promotion"


def nobody_gets_in_without_a_login(w: Walk) -> None:
    for router in ROUTERS:
        for route in router.routes:
            assert isinstance(route, APIRoute)
            path = route.path.replace("{image_id}", "0" * 64)
            for method in route.methods:
                found = httpx.request(method, f"{w.ports.airflow_url}/pictures{path}")
                assert found.status_code == 401, (method, path)


def let_a_script_arrive(w: Walk) -> None:
    source = next(path for path in sorted(w.settings.inbox.iterdir()) if path.suffix == ".jpg")
    other = io.BytesIO()
    Image.open(source).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(other, "JPEG", quality=90)
    if not (w.settings.inbox / SCRIPT_NAME).exists():
        (w.settings.inbox / SCRIPT_NAME).write_bytes(other.getvalue())


def a_choice_can_be_shared(page: Page, desk: Frame) -> None:
    everything = cards(desk).count()
    desk.locator(".chip").filter(has_text="boot").first.click()
    page.wait_for_url("**/plugin/pictures/**g.style=boot**")
    desk.wait_for_url("**g.style=boot**")
    chosen = cards(desk).count()
    assert 0 < chosen < everything
    again = page.context.new_page()
    again.goto(page.url)
    assert cards(desk_of(again)).count() == chosen
    again.close()
    desk.get_by_text("clear all filters").click()
    expect(cards(desk)).to_have_count(everything)


def correct_by_keyboard(w: Walk, page: Page, desk: Frame) -> tuple[str, str, str]:
    """Correct a picture, undo, correct it again; return picture, group and tag."""
    cards(desk).nth(2).focus()
    image_id = cards(desk).nth(2).get_attribute("data-image") or ""
    key = desk.locator('.palette [data-group="style"] [aria-pressed=false]').first
    tag, pressed = key.get_attribute("data-tag") or "", key.get_attribute("data-key") or ""
    page.keyboard.press(pressed)
    expect(desk.locator("#toast")).to_contain_text(f"with {tag}")
    assert tag in w.tags(image_id, "style").tags
    page.keyboard.press("u")
    expect(desk.locator("#toast")).to_contain_text("undone")
    assert tag not in w.tags(image_id, "style").tags
    page.reload()
    desk = desk_of(page)
    card(desk, image_id).focus()
    page.keyboard.press(pressed)
    expect(desk.locator("#toast")).to_contain_text(f"with {tag}")
    page.reload()
    desk = desk_of(page)
    expect(card(desk, image_id).locator(".corrected", has_text=tag)).to_have_count(1)
    return image_id, "style", tag


def look_around(page: Page, image_id: str) -> None:
    """Look at a picture large, and at why it has its scores."""
    desk = desk_of(page)
    card(desk, image_id).locator(".look").click()
    desk.wait_for_url("**/picture/**")
    large = desk.locator("#single img")
    assert large.evaluate("i => i.decode().then(() => i.naturalWidth)") > 160
    desk.get_by_role("link", name="Why these scores?").click()
    desk.wait_for_url("**/why**", timeout=120_000)
    heat = desk.locator("img.heat")
    assert heat.evaluate("i => i.decode().then(() => i.naturalWidth)") > 1


def the_second_of_two_is_told(w: Walk, page: Page, image_id: str) -> None:
    address = f"{w.ports.airflow_url}/plugin/pictures/pictures/"
    bo = w.log_in("bo")
    for each in (bo, page):
        each.goto(address)
    first, second = desk_of(page), desk_of(bo)
    key = first.locator('.palette [data-group="detail"] [data-key]').first
    for each, desk in ((page, first), (bo, second)):
        card(desk, image_id).focus()
        each.keyboard.press(key.get_attribute("data-key") or "")
        expect(desk.locator("#toast")).not_to_be_empty()
    expect(second.locator("#toast")).to_contain_text("ann edited detail of picture")
    bo.context.close()
    page.keyboard.press("u")
    expect(first.locator("#toast")).to_contain_text("undone")


def a_viewer_cannot_write(w: Walk) -> None:
    kim = w.log_in("kim")
    kim.get_by_role("link", name="Pictures").click()
    desk = desk_of(kim)
    assert cards(desk).count() > 0
    assert desk.locator(".palette").count() == 0
    status = """body => fetch("undo", {
        method: "POST", headers: {"Content-Type": "application/json"}, body,
    }).then(response => response.status)"""
    assert desk.evaluate(status, '{"ids": [1]}') == 403
    kim.context.close()


def a_form_from_mlflow_is_refused(w: Walk, page: Page) -> None:
    """Post a form from MLflow's port: as cookies know no ports, Airflow's comes with it."""
    evil = page.context.new_page()
    evil.goto(f"{w.ports.mlflow_url}/health")  # of that origin, and without a login
    form = """address => {
        const form = document.createElement("form");
        Object.assign(form, { method: "POST", enctype: "text/plain", action: address });
        const field = document.createElement("input");
        form.append(Object.assign(field, { name: '{"ids": [1], "x":"', value: '"}' }));
        document.body.append(form);
        form.submit();
    }"""
    with evil.expect_navigation() as navigation:
        evil.evaluate(form, f"{w.ports.airflow_url}/pictures/undo")
    assert "_token=" in navigation.value.request.all_headers().get("cookie", "")
    assert navigation.value.status == 403
    evil.close()


def names_are_text(w: Walk, page: Page) -> None:
    page.goto(f"{w.ports.airflow_url}/plugin/pictures/pictures/?q=script")
    desk = desk_of(page)
    expect(cards(desk)).to_have_count(1)
    assert SCRIPT_NAME in (desk.locator(".file").first.text_content() or "")
    assert BROKEN not in (page.title(), desk.title())


def exported(w: Walk) -> dict[str, dict[str, list[str]]]:
    """What `shoetagger export` says: image id -> group -> tags."""
    table = w.settings.home / "export.jsonl"
    w.run(script_path("shoetagger"), "export", str(table), "--format", "jsonl")
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    return {row["image_id"]: row["tags"] for row in rows}


def confirm_the_queue(w: Walk, page: Page) -> None:
    """Confirm pictures of the queue one after the other, by Enter alone."""
    page.goto(f"{w.ports.airflow_url}/plugin/pictures/pictures/")
    desk = desk_of(page)
    desk.get_by_role("link", name="Next to label").click()
    desk.wait_for_url("**/queue")
    cards(desk).first.focus()
    confirmed = []
    for _ in range(CHECKED):
        picture = desk.locator(":focus").get_attribute("data-image") or ""
        page.keyboard.press("Enter")
        expect(card(desk, picture).locator(".mark")).not_to_have_count(0)
        until(lambda picture=picture: is_checked(w, picture))
        confirmed.append(picture)
    assert len(set(confirmed)) == CHECKED
    with Store(w.settings.store_url) as store:
        rows = [row for picture in confirmed for row in store.corrections.history(picture)]
    assert {row.origin for row in rows if row.kind == "confirm"} == {"queue", "random"}


def is_checked(w: Walk, image_id: str) -> bool:
    return all(w.tags(image_id, group).corrected for group in w.groups)


def collect(w: Walk) -> None:
    """Let the DAG collect what was confirmed; nothing else in the workspace changes."""
    run = w.airflow.trigger(COLLECTING, {})
    w.airflow.follow(COLLECTING, run, lambda _: None)
    message = w.run("git", "log", "-1", "--format=%B", "labels")
    assert f"{CHECKED} checked pictures" in message
    assert f"checked by ann: {CHECKED}" in message
    assert "met in queue: " in message
    assert w.run("git", "status", "--porcelain") == ""
    assert "up to date" in w.run(sys.executable, "-m", "dvc", "status", "data.dvc")


def train_and_approve(w: Walk, page: Page, before: set[str]) -> list[str]:
    """Wait for the training that the collection starts, and approve what it asks for.

    Return the groups that were promoted: the gate stops models that find nothing.
    """
    ask_always(w)
    until(lambda: bool(w.airflow.runs(TRAINING).keys() - before), every=1.0)
    (run,) = w.airflow.runs(TRAINING).keys() - before
    assert w.airflow.runs(TRAINING)[run] == "asset_triggered"
    shown = False
    asked: dict[int, float] = {}  # map index -> when its question was first seen

    def ended() -> bool:
        nonlocal shown
        tasks = w.airflow.tasks(TRAINING, run)
        for task in tasks:
            assert task.state != "failed", w.airflow.log_file(TRAINING, run, task).read_text()
            if task.task_id.endswith("approve") and task.state == "awaiting_input":
                # Airflow takes a task that is answered while its process still ends for failed,
                # and asks again; no person is as quick.
                if time.monotonic() - asked.setdefault(task.map_index, time.monotonic()) < 5:
                    continue
                if not shown:
                    the_approval_leads_to_the_desk(w, page, run, task.map_index)
                    shown = True
                path = hitl(run, task.map_index)
                body = {"chosen_options": ["Approve"], "params_input": {"why": "looks right"}}
                as_ann(w, "PATCH", path, body)
        last = [task for task in tasks if task.task_id.endswith("promote")]
        return len(last) == len(w.groups) and all(t.state in ("success", "skipped") for t in last)

    until(ended, seconds=1500, every=2.0)  # each look is a request
    w.airflow.follow(TRAINING, run, lambda _: None)
    with Store(w.settings.store_url) as store:
        live = store.ledger.live()
        numbers = {v.digest: v.version for v in store.ledger.versions()}
        promoted = [group for group in w.groups if numbers[live[group]] == "2"]
        moves = [move for group in promoted for move in store.ledger.history(group)[-1:]]
    assert promoted
    assert all(move.by.startswith("ann") for move in moves)
    commit = w.run("git", "rev-parse", "labels").strip()
    checkouts = [path.name for path in w.settings.checkouts.iterdir() if path.is_dir()]
    assert any(name.startswith(commit[:7]) for name in checkouts), checkouts
    return promoted


def ask_always(w: Walk) -> None:
    """Let a person be asked before each promotion; the gate is the installation's."""
    file = w.settings.params_file
    document = yaml.safe_load(file.read_text())
    document["promote"]["approval"] = "always"
    file.write_text(yaml.safe_dump(document, sort_keys=False))


def the_approval_leads_to_the_desk(w: Walk, page: Page, run: str, index: int) -> None:
    body = as_ann(w, "GET", hitl(run, index), None)["body"]
    address = body.partition("on the desk](")[2].partition(")")[0]
    assert address.startswith(f"{w.ports.airflow_url}/plugin/pictures/pictures/challengers/")
    page.goto(address)
    expect(desk_of(page).locator("main")).to_contain_text("a person has to approve")


def hitl(run: str, index: int) -> str:
    instance = f"dagRuns/{run}/taskInstances/model.approve/{index}"
    return f"/api/v2/dags/{TRAINING}/{instance}/hitlDetails"


def as_ann(w: Walk, method: str, path: str, body: object) -> dict[str, Any]:
    with httpx.Client(base_url=w.ports.airflow_url, timeout=60) as client:
        login = {"username": "ann", "password": w.passwords["ann"]}
        token = client.post("/auth/token", json=login).json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        response = client.request(method, path, json=body, headers=headers)
    assert response.is_success, response.text
    found: dict[str, Any] = response.json()
    return found


def until(condition: Callable[[], bool], seconds: float = 60.0, every: float = 0.3) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(every)
