"""People hear of what happened wherever they want to, and no secret of an address is shown."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest
from helpers.webhook import webhook
from typer.testing import CliRunner

from shoetagger.cli.app import app
from shoetagger.errors import ShoetaggerError
from shoetagger.notification.addresses import fault_of, is_webhook, service, shown
from shoetagger.notification.message import Message
from shoetagger.notification.send import send

NIGHT = Message("done", "night done: 12 new", ["tag boot: drift"], more={"run_id": "r1"})
SLACK = "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """All that programs log which ask for everything; caplog also has what is kept from them."""
    text, root = io.StringIO(), logging.getLogger()
    handler, level = logging.StreamHandler(text), root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield text
    root.removeHandler(handler)
    root.setLevel(level)


def test_a_webhook_gets_json_and_its_address_stays_out_of_the_logs(log: io.StringIO) -> None:
    with webhook() as (url, received):
        (outcome,) = send(url, NIGHT)
    assert outcome.error is None
    assert received == [
        {
            "run_id": "r1",
            "state": "done",
            "summary": "night done: 12 new",
            "alerts": ["tag boot: drift"],
            "path": "/hook/s3cret",
        }
    ]
    assert "event=notified to=127.0.0.1" in log.getvalue()
    assert "s3cret" not in log.getvalue()


def test_other_services_get_a_text_by_the_address_that_apprise_gives_them(
    log: io.StringIO,
) -> None:
    message = Message("waiting", "Promote color version 3?", ["answer by ten"], "http://here/x")
    with webhook() as (url, received):
        (outcome,) = send(url.replace("http://", "json://"), message)
    assert (outcome.to, outcome.error) == ("JSON", None)
    (told,) = received
    assert told["title"] == "shoetagger: waiting"
    assert told["message"] == "Promote color version 3?\n- answer by ten\nhttp://here/x"
    assert told["type"] == "info"
    assert "event=notified to=JSON" in log.getvalue()
    assert "s3cret" not in log.getvalue()


def test_an_address_that_fails_is_a_warning_and_the_others_are_told(
    log: io.StringIO,
) -> None:
    with webhook(status=500) as (broken, _), webhook() as (url, received):
        setting = " ".join(
            [
                broken,
                broken.replace("http://", "json://"),
                "http://127.0.0.1:9/s3cret-token",
                "json://127.0.0.1:9/s3cret-token",
                "hooks/s3cret",
                "http://[::1/s3cret",
                "slack://s3cret",
                "nosuch://s3cret",
                f"https://{'a' * 64}.example/s3cret",
                url,
            ]
        )
        outcomes = send(setting, NIGHT)
    assert [outcome.error is None for outcome in outcomes] == [False] * 9 + [True]
    assert outcomes[0].error == "it answers 500"
    assert "500" in str(outcomes[1].error)
    assert len(received) == 1
    assert log.getvalue().count("event=not_notified") == 9
    assert "s3cret" not in log.getvalue() + "".join(str(outcome) for outcome in outcomes)


def test_addresses_are_told_apart_and_shown_without_their_secrets() -> None:
    assert is_webhook("https://host/path")
    assert not is_webhook("https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXr")
    assert [shown(a) for a in ("https://host/path", SLACK, "mailto://me:pass@example.com")] == [
        "host", "Slack", "E-Mail",
    ]  # fmt: skip
    teams = "https://prod-12.westeurope.logic.azure.com:443/workflows/643e69f83c89/triggers/manual"
    found = service(f"{teams}/paths/invoke?api-version=2016-06-01&sp=x&sv=1.0&sig=KODuebWbDGYFr0")
    assert found is not None
    assert "Teams" in str(found.service_name)


@pytest.mark.parametrize("setting", ["host/s3cret", "ftp://host/s3cret", "http://[::1/s3cret"])
def test_the_fault_of_an_address_is_said_without_it(setting: str) -> None:
    fault = fault_of(setting)
    assert fault is not None
    assert fault.startswith("SHOETAGGER_NOTIFY_URL: the address cannot be used")
    assert "s3cret" not in fault
    fault = fault_of(f"https://host/path {setting} {SLACK} {setting}")
    assert fault is not None
    assert "address 2 and address 4 cannot be used" in fault
    assert fault_of(f"https://host/path {SLACK}") is fault_of(None) is fault_of("") is None


def test_the_command_tries_the_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    def call() -> str:
        return CliRunner().invoke(app, ["notify"], catch_exceptions=False).output

    with webhook() as (url, received), webhook(status=404) as (broken, _):
        monkeypatch.setenv("SHOETAGGER_NOTIFY_URL", url)
        assert "sent to 127.0.0.1" in call()
        assert received[0]["state"] == "test"
        monkeypatch.setenv("SHOETAGGER_NOTIFY_URL", f"{url} {broken}")
        with pytest.raises(ShoetaggerError, match=r"not reach all:\n127.0.0.1: it answers 404"):
            call()
    monkeypatch.setenv("SHOETAGGER_NOTIFY_URL", "")
    with pytest.raises(ShoetaggerError, match="names no address"):
        call()
