"""Runs reach MLflow once, whole and in order, whether it is there, down, or comes back."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from helpers import fork_server
from helpers.mlflow_server import mlflow_server
from helpers.ports import free_port
from matplotlib.figure import Figure
from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun

from shoetagger.config.settings import sqlite_url
from shoetagger.tracking.connection import EXPERIMENT, TrackingError, prepare
from shoetagger.tracking.journal import Journal, is_in_use
from shoetagger.tracking.outbox import Outbox, SyncReport, faulty, trim
from shoetagger.tracking.run import Tracker

TAGS = {"git_commit": "c0ffee", "data_revision": "0123abcd"}


@pytest.fixture
def tracker(uri: str, tmp_path: Path) -> Tracker:
    return Tracker(uri, tmp_path / "outbox", tmp_path / "the artifacts")


@pytest.fixture
def nobody_there() -> Iterator[str]:
    """A port that refuses: it is taken, and nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def runs_in(uri: str) -> list[MlflowRun]:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return []
    return list(
        client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
    )


def only_run(uri: str) -> MlflowRun:
    (run,) = runs_in(uri)
    return run


def measured(uri: str) -> dict[str, float]:
    """The metrics of the only run, without those of the machine."""
    metrics = only_run(uri).data.metrics
    return {name: value for name, value in metrics.items() if not name.startswith("system/")}


def artifacts_of(run: MlflowRun, tracker: Tracker) -> dict[str, bytes]:
    root = tracker.outbox.artifacts / run.info.run_id / "artifacts"
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def journals(tracker: Tracker) -> list[Path]:
    return sorted(p for p in tracker.outbox.folder.iterdir() if p.is_dir())


def elsewhere(tracker: Tracker, uri: str) -> Tracker:
    """Return a tracker with the same outbox whose MLflow is at another address."""
    return Tracker(uri, tracker.outbox.folder, tracker.outbox.artifacts)


def train(tracker: Tracker, name: str = "train color", epochs: int = 3) -> None:
    """What a stage does: parameters, numbers an epoch, figures, a tag at the end."""
    with tracker.start(name, tags=TAGS, params={"epochs": epochs, "head_lr": 0.001}) as run:
        for epoch in range(epochs):
            run.log_metrics({"loss": 1.0 / (epoch + 1), "f1": 0.1 * epoch}, step=epoch)
        figure = Figure()
        figure.add_subplot().plot([1, 2, 3])
        run.log_figure("plots/loss.png", figure)
        run.log_file("code/train.py", Path(__file__))
        run.log_text("notes/red shoe.txt", "as it is")
        run.log_text("report.txt", "größer\n")
        run.log_dict("support.json", {"red": 3})
        run.set_tags({"weights_sha256": "a" * 64})


def test_a_run_reaches_mlflow_whole(tracker: Tracker, uri: str) -> None:
    train(tracker)
    run = only_run(uri)
    assert run.info.run_name == "train color"
    assert run.info.status == "FINISHED"
    assert run.data.params == {"epochs": "3", "head_lr": "0.001"}
    assert run.data.metrics["loss"] == pytest.approx(1 / 3)
    assert TAGS.items() <= run.data.tags.items()
    assert run.data.tags["mlflow.source.git.commit"] == "c0ffee"
    assert run.data.tags["weights_sha256"] == "a" * 64
    history = MlflowClient(uri).get_metric_history(run.info.run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(0, 1.0), (1, 0.5), (2, pytest.approx(1 / 3))]
    files = artifacts_of(run, tracker)
    assert set(files) == {
        "plots/loss.png",
        "code/train.py",
        "notes/red shoe.txt",
        "report.txt",
        "support.json",
    }
    assert files["plots/loss.png"].startswith(b"\x89PNG")
    assert files["code/train.py"] == Path(__file__).read_bytes()
    assert files["notes/red shoe.txt"] == b"as it is"
    assert files["report.txt"].decode() == "größer\n"
    assert json.loads(files["support.json"]) == {"red": 3}
    assert journals(tracker) == []


def test_mlflow_hears_of_a_run_while_it_works(tracker: Tracker, uri: str) -> None:
    with tracker.start("train color", tags=TAGS, params={}) as run:
        assert only_run(uri).info.status == "RUNNING"
        assert run.run_id == only_run(uri).info.run_id
        run.log_metrics({"loss": 0.5}, step=0)
        run._next_flush = 0.0  # as if the pause between two flushes were over
        run.log_metrics({"loss": 0.25}, step=1)
        assert measured(uri) == {"loss": 0.25}


def test_the_experiment_keeps_its_files_under_a_file_uri(tracker: Tracker, uri: str) -> None:
    train(tracker)
    experiment = MlflowClient(uri).get_experiment_by_name("shoetagger")
    assert experiment is not None
    assert experiment.artifact_location == tracker.outbox.artifacts.as_uri()


@pytest.mark.slow
def test_an_experiment_deleted_by_hand_is_taken_up_again(tracker: Tracker, uri: str) -> None:
    train(tracker)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("shoetagger")
    assert experiment is not None
    client.delete_experiment(experiment.experiment_id)
    train(tracker, name="again")
    assert "again" in [run.info.run_name for run in runs_in(uri)]


def interrupt() -> None:
    raise KeyboardInterrupt


def fail() -> None:
    raise ValueError("loss is not finite")


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(1)


@pytest.mark.parametrize(
    ("end", "error", "status"),
    [
        (interrupt, KeyboardInterrupt, "KILLED"),
        (terminate, SystemExit, "KILLED"),
        (fail, ValueError, "FAILED"),
    ],
)
def test_a_run_that_ends_early_says_how(
    tracker: Tracker, uri: str, end: Callable[[], None], error: type[BaseException], status: str
) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def stage() -> None:
        with tracker.start("train color", tags=TAGS, params={}) as run:
            run.log_metrics({"loss": 0.5}, step=0)
            end()

    with pytest.raises(error):
        stage()
    assert only_run(uri).info.status == status
    assert measured(uri) == {"loss": 0.5}
    assert signal.getsignal(signal.SIGTERM) is before
    assert journals(tracker) == []


def test_a_sigterm_that_another_handler_turns_into_an_error_still_means_killed(
    tracker: Tracker, uri: str
) -> None:
    def as_a_scheduler_does(number: int, _frame: object) -> None:
        raise RuntimeError(f"task received signal {number}")

    before = signal.signal(signal.SIGTERM, as_a_scheduler_does)
    try:
        with pytest.raises(RuntimeError), tracker.start("train", tags=TAGS, params={}):
            terminate()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert only_run(uri).info.status == "KILLED"


def test_numbers_that_are_not_finite_are_kept(tracker: Tracker, uri: str) -> None:
    with tracker.start("train", tags=TAGS, params={}) as run:
        run.log_metrics({"loss": float("nan"), "norm": float("inf")})
    assert only_run(uri).info.status == "FINISHED"
    assert set(measured(uri)) == {"loss", "norm"}


def test_what_mlflow_refuses_costs_only_itself(
    tracker: Tracker, uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    with tracker.start("train", tags=TAGS, params={}) as run:
        run.log_metrics({"": 0.5, "loss": 0.25})
    assert measured(uri) == {"loss": 0.25}
    assert only_run(uri).info.status == "FINISHED"
    (warning,) = caplog.messages
    assert "MLflow refuses metric  of run" in warning
    assert journals(tracker) == []


def test_a_run_that_mlflow_refuses_as_a_whole_is_set_aside_and_holds_up_no_other(
    tracker: Tracker, uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    odd = {"key": "a `quoted` key", "value": "x", "otherwise": "odd", "tags": TAGS, "params": {}}
    with tracker.attach(**odd) as run:  # type: ignore[arg-type]
        run.log_metrics({"loss": 0.5})
    assert len(journals(tracker)) == 1
    assert "refuses a request" in caplog.text
    with tracker.start("train", tags=TAGS, params={}) as run:
        run.log_metrics({"loss": 0.25})
    assert measured(uri) == {"loss": 0.25}
    assert journals(tracker) == []
    (kept,) = faulty(tracker.outbox.folder).iterdir()
    assert f"{kept}: mend it and move it back to" in caplog.text


@pytest.mark.parametrize("name", ["../escape.txt", "/etc/escape.txt", "", "a/.."])
def test_an_artifact_cannot_leave_its_run(tracker: Tracker, name: str) -> None:
    with (
        pytest.raises(TrackingError, match="not a file name within a run"),
        tracker.start("train", tags=TAGS, params={}) as run,
    ):
        run.log_text(name, "x")


# --- attaching ------------------------------------------------------------------------------


def evaluate(tracker: Tracker, weights: str = "a" * 64) -> None:
    with tracker.attach(
        key="weights_sha256",
        value=weights,
        otherwise="evaluate@color",
        tags=TAGS,
        params={"epochs": 99, "shrink": 10},
    ) as run:
        run.log_metrics({"macro_f1": 0.7})


def test_evaluation_continues_the_run_that_made_the_weights(tracker: Tracker, uri: str) -> None:
    train(tracker)
    ended = only_run(uri).info.end_time
    evaluate(tracker)
    run = only_run(uri)
    assert run.data.metrics["macro_f1"] == 0.7
    assert run.data.metrics["f1"] == pytest.approx(0.2)
    assert run.data.params == {"epochs": "3", "head_lr": "0.001", "shrink": "10"}
    assert (run.info.status, run.info.end_time) == ("FINISHED", ended)
    assert run.data.tags["ended evaluate color"] == "FINISHED"


def test_evaluation_of_weights_from_nowhere_gets_a_run_of_its_own(
    tracker: Tracker, uri: str
) -> None:
    train(tracker)
    evaluate(tracker, weights="b" * 64)
    _, run = runs_in(uri)
    assert run.info.run_name == "evaluate@color"
    assert run.info.status == "FINISHED"


# --- MLflow down ----------------------------------------------------------------------------


def test_while_mlflow_is_down_training_goes_on_with_one_warning(
    tracker: Tracker,
    nobody_there: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    down = elsewhere(tracker, nobody_there.replace("//", "//me:secret@"))
    began, slept = time.monotonic(), list[float]()
    monkeypatch.setattr(time, "sleep", slept.append)  # as between MLflow's own retries
    train(down)
    assert sum(slept) < 5
    assert time.monotonic() - began < 60
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    message = record.getMessage()
    assert nobody_there in message
    assert "Connection refused" in message
    assert "`shoetagger sync`" in message
    assert "secret" not in message
    assert "\n" not in message
    assert len(journals(tracker)) == 1


def test_what_waited_is_sent_once_with_the_times_at_which_it_happened(
    tracker: Tracker, uri: str, nobody_there: str
) -> None:
    began = int(time.time() * 1000)
    train(elsewhere(tracker, nobody_there))
    ended = time.time() * 1000
    time.sleep(0.05)
    assert elsewhere(tracker, uri).outbox.sync() == SyncReport(sent=1, waiting=0)
    assert elsewhere(tracker, uri).outbox.sync() == SyncReport(sent=0, waiting=0)
    run = only_run(uri)
    assert began <= run.info.start_time <= run.info.end_time <= ended
    assert run.info.status == "FINISHED"
    assert len(artifacts_of(run, tracker)) == 5
    history = MlflowClient(uri).get_metric_history(run.info.run_id, "loss")
    assert len(history) == 3
    assert all(began <= m.timestamp <= ended for m in history)
    assert journals(tracker) == []


@pytest.mark.slow
def test_an_outbox_over_its_size_gives_up_its_oldest_runs_but_none_at_work(
    tracker: Tracker, nobody_there: str, caplog: pytest.LogCaptureFixture
) -> None:
    down = elsewhere(tracker, nobody_there)
    for _ in range(3):
        train(down)
    oldest, second, third = journals(tracker)
    assert trim(tracker.outbox.folder, 1000.0) == []
    size = sum(path.stat().st_size for path in oldest.rglob("*") if path.is_file())
    with down.start("at work", tags={}, params={}):
        at_work = journals(tracker)[-1]
        assert trim(tracker.outbox.folder, 2.5 * size / 1e6) == [oldest.name]
        assert "keep.outbox_mb" in caplog.text
        assert trim(tracker.outbox.folder, 0.0) == [second.name, third.name]
        assert journals(tracker) == [at_work]


def _break_a_line(journal: Path) -> None:
    lines = (journal / "journal.jsonl").read_text().splitlines()
    (journal / "journal.jsonl").write_text(
        "\n".join([lines[0], '{"time": 1, "metr', *lines[1:], ""])
    )


def _lose_the_start(journal: Path) -> None:
    lines = (journal / "journal.jsonl").read_text().splitlines()
    (journal / "journal.jsonl").write_text("\n".join([*lines[1:], ""]))


def _lose_it_all(journal: Path) -> None:
    (journal / "journal.jsonl").write_text("")


def _break_the_progress(journal: Path) -> None:
    (journal / "sent.json").write_text("{}{}")


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage", [_break_a_line, _lose_the_start, _lose_it_all, _break_the_progress]
)
def test_a_damaged_run_is_set_aside_and_the_others_are_sent(
    tracker: Tracker,
    uri: str,
    nobody_there: str,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], None],
) -> None:
    down = elsewhere(tracker, nobody_there)
    train(down)
    train(down, name="train style")
    damaged, _ = journals(tracker)
    damage(damaged)
    caplog.clear()
    assert tracker.outbox.sync() == SyncReport(sent=1, waiting=0)
    assert only_run(uri).info.run_name == "train style"
    (message,) = caplog.messages
    aside = faulty(tracker.outbox.folder) / damaged.name
    assert f"now in {aside}: mend it" in message
    assert f"{damaged} is damaged" in message
    assert (aside / "journal.jsonl").is_file()
    assert trim(tracker.outbox.folder, 0.0) == [damaged.name]
    assert not aside.exists()


def test_a_file_that_an_outbox_has_lost_costs_only_itself(
    tracker: Tracker, uri: str, nobody_there: str, caplog: pytest.LogCaptureFixture
) -> None:
    down = elsewhere(tracker, nobody_there)
    with down.start("train", tags=TAGS, params={}) as run:
        run.log_text("lost.txt", "x")
        run.log_text("kept.txt", "y")
    (journal,) = journals(tracker)
    (lost,) = journal.rglob("lost.txt")
    lost.unlink()
    caplog.clear()
    assert tracker.outbox.sync() == SyncReport(sent=1, waiting=0)
    assert artifacts_of(only_run(uri), tracker) == {"kept.txt": b"y"}
    assert f"{lost} is missing" in caplog.text


def test_a_sync_that_reaches_nobody_says_so_and_loses_nothing(
    tracker: Tracker, nobody_there: str
) -> None:
    train(elsewhere(tracker, nobody_there))
    report = elsewhere(tracker, nobody_there).outbox.sync()
    assert (report.sent, report.waiting) == (0, 1)
    assert report.fault is not None
    assert nobody_there in report.fault
    assert tracker.outbox.sync() == SyncReport(sent=1, waiting=0)


def test_the_next_run_sends_first_what_waited(
    tracker: Tracker, uri: str, nobody_there: str
) -> None:
    """Its evaluation finds a training run that MLflow had not heard of."""
    train(elsewhere(tracker, nobody_there))
    evaluate(tracker)
    assert only_run(uri).data.metrics["macro_f1"] == 0.7
    assert journals(tracker) == []


@pytest.mark.slow
def test_runs_that_wait_together_are_sent_in_order(
    tracker: Tracker, uri: str, nobody_there: str
) -> None:
    down = elsewhere(tracker, nobody_there)
    train(down)
    evaluate(down)
    train(down, name="train style")
    assert tracker.outbox.sync() == SyncReport(sent=3, waiting=0)
    assert [run.info.run_name for run in runs_in(uri)] == ["train color", "train style"]
    assert runs_in(uri)[0].data.metrics["macro_f1"] == 0.7


def test_a_database_that_cannot_be_opened_is_an_outage_too(
    tracker: Tracker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    train(elsewhere(tracker, f"sqlite:///{tmp_path}/file/mlflow.db"))
    assert len(caplog.messages) == 1
    assert tracker.outbox.sync() == SyncReport(sent=1, waiting=0)


@pytest.mark.slow
def test_signs_in_the_path_of_a_database_do_not_change_where_it_lies(
    tmp_path: Path,
) -> None:
    database = tmp_path / "100% a?b" / "mlflow.db"
    prepare(sqlite_url(database))  # which makes the folder
    assert database.stat().st_size > 0
    assert database.with_name("mlflow.db.lock").exists()


def test_a_server_that_is_not_mlflow_is_an_outage(tracker: Tracker, tmp_path: Path) -> None:
    """Every answer is 404: nothing may be taken for sent, or for refused."""
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        assert server.stdout is not None
        port = server.stdout.readline().split("port ")[1].split()[0]
        train(elsewhere(tracker, f"http://127.0.0.1:{port}"))
        server.terminate()
    assert tracker.outbox.sync() == SyncReport(sent=1, waiting=0)


def test_an_outage_midway_is_caught_up_within_the_run(
    tracker: Tracker, uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    database = Path(uri.removeprefix("sqlite:///"))
    with tracker.start("train", tags=TAGS, params={}) as run:
        run.log_metrics({"loss": 0.5}, step=0)
        database.rename(database.with_suffix(".away"))
        database.mkdir()  # a folder in its place: no connection can be made
        run._next_flush = 0.0
        run.log_metrics({"loss": 0.25}, step=1)
        assert len(caplog.messages) == 1
        database.rmdir()
        database.with_suffix(".away").rename(database)
        run.log_metrics({"loss": 0.125}, step=2)
    assert len(caplog.messages) == 1
    history = MlflowClient(uri).get_metric_history(only_run(uri).info.run_id, "loss")
    assert [m.step for m in history] == [0, 1, 2]


def test_sending_a_journal_twice_changes_nothing(
    tracker: Tracker, uri: str, nobody_there: str, tmp_path: Path
) -> None:
    """As after a crash at the worst moment: all was sent, and nothing noted."""
    train(elsewhere(tracker, nobody_there))
    (journal,) = journals(tracker)
    shutil.copytree(journal, tmp_path / "copy")
    tracker.outbox.sync()
    first = only_run(uri)
    shutil.copytree(tmp_path / "copy", journal)
    assert tracker.outbox.sync() == SyncReport(sent=1, waiting=0)
    again = only_run(uri)
    assert again.to_dictionary() == first.to_dictionary()
    assert len(MlflowClient(uri).get_metric_history(again.info.run_id, "loss")) == 3


def test_a_journal_begun_with_one_mlflow_is_sent_whole_to_another(
    tracker: Tracker, empty_database: Path, tmp_path: Path
) -> None:
    shutil.copy(empty_database, tmp_path / "other.db")
    other = f"sqlite:///{tmp_path / 'other.db'}"
    with tracker.start("train", tags=TAGS, params={"epochs": 2}) as run:
        run.log_metrics({"loss": 0.5}, step=0)
        run._next_flush = 0.0
        run.log_metrics({"loss": 0.25}, step=1)
        shutil.copytree(journals(tracker)[0], tmp_path / "outbox2" / "journal")
    # The copy looks like the journal of a process that has died.
    report = Outbox(other, tmp_path / "outbox2", tracker.outbox.artifacts).sync()
    assert report == SyncReport(sent=1, waiting=0)
    assert only_run(other).data.params == {"epochs": "2"}
    assert only_run(other).info.status == "FAILED"
    history = MlflowClient(other).get_metric_history(only_run(other).info.run_id, "loss")
    assert [m.step for m in history] == [0, 1]


@pytest.mark.slow
def test_a_server_that_dies_midway_and_comes_back_hears_everything_once(
    tracker: Tracker, uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    options = ["--no-serve-artifacts"]
    options += ["--default-artifact-root", tracker.outbox.artifacts.as_uri()]
    served = elsewhere(tracker, f"http://127.0.0.1:{port}")
    with served.start("train", tags=TAGS, params={"epochs": 2}) as run:  # before it is up
        run.log_metrics({"loss": 0.5}, step=0)
        with mlflow_server(uri, tmp_path, *options, port=port):
            run._next_flush = 0.0
            run.log_metrics({"loss": 0.25}, step=1)
            assert only_run(uri).info.status == "RUNNING"
            assert measured(uri) == {"loss": 0.25}
        run.log_text("report.txt", "after its death")
    assert len(caplog.messages) == 1
    assert only_run(uri).info.status == "RUNNING"
    with mlflow_server(uri, tmp_path, *options, port=port):
        assert served.outbox.sync() == SyncReport(sent=1, waiting=0)
    run_found = only_run(uri)
    assert run_found.info.status == "FINISHED"
    # That server has a folder per experiment.
    (report,) = tracker.outbox.artifacts.rglob(f"{run_found.info.run_id}/artifacts/*")
    assert (report.name, report.read_bytes()) == ("report.txt", b"after its death")
    history = MlflowClient(uri).get_metric_history(run_found.info.run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(0, 0.5), (1, 0.25)]


# --- crashes and crowds ---------------------------------------------------------------------


def in_another_process(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        fork_server.python("-c", textwrap.dedent(code), *arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


LIVE_RUN = """
    import sys, time
    from pathlib import Path
    from shoetagger.tracking.run import Tracker
    uri, outbox, artifacts = sys.argv[1:]
    with Tracker(uri, Path(outbox), Path(artifacts)).start("train", tags={}, params={}) as run:
        run.log_metrics({"loss": 0.5}, step=0)
        print("ready", flush=True)
        time.sleep(60)
"""


@pytest.mark.slow
def test_the_run_of_a_live_process_is_left_alone_and_that_of_a_dead_one_failed(
    tracker: Tracker, uri: str, nobody_there: str
) -> None:
    process = in_another_process(
        LIVE_RUN, nobody_there, tracker.outbox.folder, tracker.outbox.artifacts
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        (journal,) = journals(tracker)
        assert tracker.outbox.sync() == SyncReport(sent=0, waiting=0)
        assert runs_in(uri) == []
    finally:
        process.kill()
        process.communicate()
    with (journal / "journal.jsonl").open("a") as file:
        file.write('{"time": 17, "metr')  # killed in the middle of a line
    assert tracker.outbox.sync() == SyncReport(sent=1, waiting=0)
    run = only_run(uri)
    assert run.info.status == "FAILED"
    assert run.data.metrics == {"loss": 0.5}
    assert run.info.end_time is not None
    assert run.info.end_time < time.time() * 1000


def test_what_is_locked_is_a_file_that_may_be_written_as_nfs_demands(tracker: Tracker) -> None:
    """NFS locks by byte ranges of files, for writing only where the file is open for that."""
    start = {"name": "train", "attach": None, "tags": {}, "params": {}}
    journal = Journal.create(tracker.outbox.folder, start)
    assert stat.S_ISREG(os.fstat(journal._lock).st_mode)
    assert fcntl.fcntl(journal._lock, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR
    assert is_in_use(journal.folder)
    journal.remove()
    assert not list(tracker.outbox.folder.iterdir())


# As the first version wrote it: this format stays readable, since a journal may wait for months.
FIRST_FORMAT = (
    '{"time": 1700000000000, "start": {"name": "train color", "attach": null, "tags": '
    '{"git_commit": "c0ffee"}, "params": {"epochs": "2"}}, "host": "gone", "user": "somebody"}\n'
    '{"time": 1700000001000, "metrics": {"loss": 0.5}, "step": 0}\n'
    '{"time": 1700000002000, "file": "files/1/loss.png", "to": "plots"}\n'
    '{"time": 1700000003000, "metrics": {"loss": 0.25}, "step": 1}\n'
    '{"time": 1700000004000, "tags": {"weights_sha256": "aa"}}\n'
)


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("half_sent", [True, False])
def test_a_journal_in_the_first_format_is_sent(
    tracker: Tracker, uri: str, finished: bool, half_sent: bool
) -> None:
    journal = tracker.outbox.folder / "20231114T221320.000000Z-0123456789ab"
    (journal / "files" / "1").mkdir(parents=True)
    (journal / "files" / "1" / "loss.png").write_bytes(b"\x89PNG")
    lines = FIRST_FORMAT
    if half_sent:
        client = MlflowClient(uri)
        experiment = client.create_experiment(
            EXPERIMENT, artifact_location=tracker.outbox.artifacts.as_uri()
        )
        sent = {
            "run_id": client.create_run(experiment, 1700000000000).info.run_id,
            "attached": False,
            "offset": lines.index("\n") + 1,
        }
        (journal / "sent.json").write_text(json.dumps(sent))
    if finished:
        lines += '{"time": 1700000005000, "finish": "FINISHED"}\n'
    (journal / "journal.jsonl").write_text(lines)
    assert tracker.outbox.sync() == SyncReport(sent=1, waiting=0)
    run = only_run(uri)
    assert run.info.status == ("FINISHED" if finished else "FAILED")
    assert run.data.metrics == {"loss": 0.25}
    assert run.data.tags["weights_sha256"] == "aa"
    assert run.data.params == ({} if half_sent else {"epochs": "2"})  # sent before sent.json was
    assert artifacts_of(run, tracker) == {"plots/loss.png": b"\x89PNG"}


def test_a_journal_that_a_process_of_older_code_writes_is_left_alone(tracker: Tracker) -> None:
    """They lock the folder, in which there is no file to lock."""
    journal = tracker.outbox.folder / "20231114T221320.000000Z-0123456789ab"
    (journal / "files" / "1").mkdir(parents=True)
    (journal / "files" / "1" / "loss.png").write_bytes(b"\x89PNG")
    (journal / "journal.jsonl").write_text(FIRST_FORMAT)
    lock = os.open(journal, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert tracker.outbox.sync() == SyncReport(sent=0, waiting=0)
    finally:
        os.close(lock)
    assert tracker.outbox.sync() == SyncReport(sent=1, waiting=0)


FIRST_TOUCH = """
    import sys
    from pathlib import Path
    from shoetagger.tracking.connection import load_mlflow
    from shoetagger.tracking.run import Tracker
    uri, outbox, artifacts, name = sys.argv[1:]
    load_mlflow()
    print("ready", flush=True)
    sys.stdin.readline()
    with Tracker(uri, Path(outbox), Path(artifacts)).start(name, tags={}, params={}) as run:
        run.log_metrics({"loss": 0.5}, step=0)
"""


@pytest.mark.slow
def test_processes_that_first_touch_mlflow_at_once_do_not_spoil_it(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/new/mlflow.db"
    crowd = [
        in_another_process(FIRST_TOUCH, uri, tmp_path / "outbox", tmp_path / "files", name)
        for name in ("color", "style", "detail")
    ]
    for process in crowd:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in crowd:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in crowd:
        process.communicate()
    assert [process.returncode for process in crowd] == [0, 0, 0]
    Outbox(uri, tmp_path / "outbox", tmp_path / "files").sync()
    assert sorted(str(run.info.run_name) for run in runs_in(uri)) == ["color", "detail", "style"]
    assert {run.info.status for run in runs_in(uri)} == {"FINISHED"}
    assert len(MlflowClient(uri).search_experiments()) == 2  # ours, and MLflow's own


@pytest.mark.slow
def test_processes_that_sync_at_once_send_everything_once(
    tracker: Tracker, uri: str, nobody_there: str
) -> None:
    down = elsewhere(tracker, nobody_there)
    for number in range(5):
        train(down, name=f"train {number}")
    code = """
        import sys
        from pathlib import Path
        from shoetagger.tracking.outbox import Outbox
        uri, outbox, artifacts = sys.argv[1:]
        print(Outbox(uri, Path(outbox), Path(artifacts)).sync().sent)
    """
    crowd = [
        in_another_process(code, uri, tracker.outbox.folder, tracker.outbox.artifacts)
        for _ in range(3)
    ]
    assert sum(int(process.communicate()[0]) for process in crowd) == 5
    assert [run.info.run_name for run in runs_in(uri)] == [f"train {n}" for n in range(5)]


def test_an_outbox_that_cannot_be_written_is_named(uri: str, tmp_path: Path) -> None:
    (tmp_path / "outbox").write_text("in the way")
    with (
        pytest.raises(TrackingError, match=r"outbox .* cannot be written"),
        Tracker(uri, tmp_path / "outbox", tmp_path).start("train", tags={}, params={}),
    ):
        pass


def test_importing_tracking_does_not_import_mlflow() -> None:
    code = "import sys, shoetagger.tracking.run; print('mlflow' in sys.modules)"
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"


@pytest.mark.parametrize(
    ("patience", "seconds"), [pytest.param(None, 5, marks=pytest.mark.slow), ("1", 1)]
)
def test_a_server_that_hangs_holds_training_up_for_seconds_or_as_long_as_the_user_says(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch, patience: str | None, seconds: int
) -> None:
    if patience is not None:
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", patience)
    before = dict(os.environ)
    asked: list[float] = []
    waited: list[float] = []

    def say_nothing(server: socket.socket) -> None:
        with suppress(OSError):  # it is closed
            while True:
                connection, _ = server.accept()
                asked.append(time.monotonic())
                with connection:
                    while connection.recv(1 << 16):
                        pass
                waited.append(time.monotonic() - asked[-1])

    with socket.create_server(("127.0.0.1", 0)) as mute:
        mutely = threading.Thread(target=say_nothing, args=(mute,))
        mutely.start()
        try:
            down = elsewhere(tracker, f"http://127.0.0.1:{mute.getsockname()[1]}")
            with down.start("train", tags={}, params={}) as run:
                run.log_metrics({"loss": 0.5}, step=0)
                run.log_metrics({"loss": 0.25}, step=1)
                assert len(asked) == 1
        finally:
            mute.shutdown(socket.SHUT_RDWR)
            mutely.join()
    assert len(waited) == 2, "at its begin and at its end"
    assert all(seconds - 0.5 < each < seconds + 2 for each in waited)
    assert dict(os.environ) == before


@pytest.mark.slow
def test_mlflow_unpickles_nothing_for_us(tmp_path: Path) -> None:
    code = (
        "from shoetagger.tracking.connection import load_mlflow; load_mlflow()\n"
        "from mlflow.environment_variables import MLFLOW_ALLOW_PICKLE_DESERIALIZATION as allowed\n"
        "print(allowed.get())"
    )
    environment = {k: v for k, v in os.environ.items() if "PICKLE" not in k}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "False"
