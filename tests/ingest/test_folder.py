# Names are bytes here, which pathlib does not take:
# ruff: noqa: PTH103, PTH118, PTH120, PTH123

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import socket
import stat
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoetagger.ingest import inbox
from shoetagger.ingest.folder import locator_of, path_of, read, scan
from shoetagger.ingest.inbox import Arrival, InboxError

NAMES = st.binary(min_size=1, max_size=255).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)


def listed(root: Path) -> dict[str, Arrival]:
    arrivals = list(scan(root))
    by_path = {os.fsdecode(path_of(a.locator)): a for a in arrivals}
    assert len(by_path) == len(arrivals)
    return {os.path.relpath(path, root): arrival for path, arrival in by_path.items()}


@given(st.lists(NAMES, min_size=1, max_size=4))
def test_any_path_survives_the_way_through_a_locator(names: list[bytes]) -> None:
    path = b"/" + b"/".join(names)
    locator = locator_of(path)
    assert os.fsencode(path_of(locator)) == path
    assert locator.isascii()
    assert locator.isprintable()
    assert " " not in locator


def test_paths_that_mean_the_same_have_one_locator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert locator_of(Path("a.jpg")) == locator_of(tmp_path / "b" / ".." / "a.jpg")
    assert locator_of("a.jpg") == locator_of(os.fsencode(tmp_path) + b"//a.jpg")


@pytest.mark.parametrize("text", ["", "a.jpg", "file://host/a", "s3://bucket/a", "file:///a%00b"])
def test_what_is_no_locator_is_refused(text: str) -> None:
    with pytest.raises(InboxError, match="names no local file"):
        path_of(text)


def test_files_are_found_whatever_their_names_and_depth(tmp_path: Path) -> None:
    names = [
        b"plain.jpg",
        b"no extension",
        "schön, \"quoted\" 'x' 100%41.jpg".encode(),
        b"line\nbreak\r\x1b.jpg",
        b"\xff\xfe invalid \x80.jpg",
        b"x" * 251 + b".jpg",
        b"-rf",
        b"deep/er/and <b>deeper</b>/a.jpg",
    ]
    for number, name in enumerate(names):
        path = os.path.join(os.fsencode(tmp_path), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(b"%d" % number)
    arrivals = list(scan(tmp_path))
    assert {os.fsencode(path_of(a.locator)) for a in arrivals} == {
        os.path.join(os.fsencode(tmp_path), name) for name in names
    }
    assert all(a.refused is None for a in arrivals)
    assert {read(a.locator, 10).data for a in arrivals} == {b"%d" % n for n in range(len(names))}
    assert {read(a.locator, 10).token for a in arrivals} == {a.token for a in arrivals}
    assert {a.locator for a in arrivals} == {locator_of(path_of(a.locator)) for a in arrivals}


def test_what_is_hidden_and_the_folder_of_the_state_are_left_out(tmp_path: Path) -> None:
    for name in (".DS_Store", "._a.jpg", ".shoetagger/pages/a.jpg", "state/pages/a.jpg", "a.jpg"):
        (tmp_path / "inbox" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "inbox" / name).write_bytes(b"a")
    (tmp_path / "link").symlink_to("inbox")
    for inbox_folder in (tmp_path / "inbox", tmp_path / "link"):
        found = scan(inbox_folder, state=tmp_path / "inbox" / "state")
        assert [path_of(a.locator) for a in found] == [inbox_folder / "a.jpg"]
    found = scan(tmp_path / "inbox" / "state", state=tmp_path / "inbox")
    assert len(list(found)) == 1, "the inbox may lie in the state, as it does by default"
    with pytest.raises(InboxError, match="the folder of the state as well: set SHOETAGGER_INBOX"):
        list(scan(tmp_path / "link", state=tmp_path / "inbox"))


def test_an_empty_inbox_holds_nothing(tmp_path: Path) -> None:
    assert list(scan(tmp_path)) == []


def test_an_inbox_that_cannot_be_listed_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InboxError, match="does not exist: create it, or set SHOETAGGER_INBOX"):
        next(scan(tmp_path / "missing"))
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InboxError, match="is no folder: set SHOETAGGER_INBOX"):
        next(scan(tmp_path / "file"))


def test_an_inbox_may_itself_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "mount").mkdir()
    (tmp_path / "mount" / "a.jpg").write_bytes(b"a")
    (tmp_path / "mount" / "b.jpg").symlink_to("a.jpg")
    inbox_link = tmp_path / "inbox"
    inbox_link.symlink_to("mount")
    arrivals = listed(inbox_link)
    assert set(arrivals) == {"a.jpg", "b.jpg"}
    assert [read(a.locator, 9, root=inbox_link).data for a in arrivals.values()] == [b"a", b"a"]


def test_what_is_no_file_of_the_inbox_is_refused_and_never_opened(tmp_path: Path) -> None:
    root = tmp_path / "inbox"
    root.mkdir()
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"secret")
    (root / "folder.jpg").mkdir()
    (root / "folder.jpg" / "inside.jpg").write_bytes(b"inside")
    (root / "out.jpg").symlink_to(secret)
    (root / "out-relative.jpg").symlink_to("../secret.jpg")
    (root / "nowhere.jpg").symlink_to("missing")
    (root / "loop.jpg").symlink_to("loop.jpg")
    (root / "around").symlink_to(".")
    (root / "up").symlink_to("..")
    (root / "second-name.jpg").symlink_to("folder.jpg/inside.jpg")
    os.mkfifo(root / "pipe.jpg")
    (root / "to-pipe.jpg").symlink_to("pipe.jpg")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(root / "socket.jpg"))
    server.close()
    with contextlib.suppress(PermissionError):  # only root can make a device
        os.mknod(root / "null.jpg", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    reasons = {name: a.refused for name, a in listed(root).items()}
    assert reasons.pop("null.jpg", "a device, not a file") == "a device, not a file"
    assert reasons == {
        "folder.jpg/inside.jpg": None,
        "second-name.jpg": None,
        "out.jpg": "a symbolic link out of the inbox",
        "out-relative.jpg": "a symbolic link out of the inbox",
        "nowhere.jpg": "a symbolic link that leads nowhere",
        "loop.jpg": "a symbolic link that leads nowhere",
        "around": "a symbolic link to a folder",
        "up": "a symbolic link to a folder",
        "pipe.jpg": "a FIFO, not a file",
        "to-pipe.jpg": "a symbolic link to a FIFO, not a file",
        "socket.jpg": "a socket, not a file",
    }
    for name in ("out.jpg", "out-relative.jpg", "loop.jpg", "pipe.jpg", "to-pipe.jpg"):
        for named in (None, root):
            with pytest.raises(inbox.Unreadable):
                read(locator_of(root / name), 100, root=named)


def test_a_link_is_read_only_inside_the_root_that_is_named(tmp_path: Path) -> None:
    root = tmp_path / "inbox"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "a.jpg").write_bytes(b"a")
    (root / "link.jpg").symlink_to("sub/a.jpg")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "a.jpg").write_bytes(b"secret")
    target, link = locator_of(root / "sub" / "a.jpg"), locator_of(root / "link.jpg")
    assert read(link, 10, root=root) == read(target, 10)
    with pytest.raises(inbox.Unreadable, match="a symbolic link"):
        read(link, 10)

    # The folder becomes a link after it was listed: what was listed must not lead outside.
    (root / "sub").rename(tmp_path / "moved")
    (root / "sub").symlink_to(tmp_path / "outside")
    for locator in (target, link):
        with pytest.raises(inbox.Unreadable, match="out of the inbox"):
            read(locator, 10, root=root)


def test_a_sibling_whose_name_begins_like_the_root_is_outside(tmp_path: Path) -> None:
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox-private").mkdir()
    (tmp_path / "inbox-private" / "a.jpg").write_bytes(b"secret")
    (tmp_path / "inbox" / "a.jpg").symlink_to("../inbox-private/a.jpg")
    assert listed(tmp_path / "inbox")["a.jpg"].refused == "a symbolic link out of the inbox"


def test_each_reason_not_to_read_has_its_own_error(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    with pytest.raises(inbox.Gone) as gone:
        read(locator_of(file), 10)
    assert gone.value.reason == "gone"
    file.write_bytes(b"x" * 11)
    with pytest.raises(inbox.TooLarge) as large:
        read(locator_of(file), 10)
    assert large.value.reason == "too large (11 bytes, limit 10)"
    assert str(large.value) == f"{locator_of(file)}: {large.value.reason}"
    assert read(locator_of(file), 11).data == b"x" * 11
    with pytest.raises(inbox.Gone):
        read(locator_of(file / "below-a-file.jpg"), 10)
    with pytest.raises(inbox.Gone, match="took the file's place"):
        read(locator_of(tmp_path), 10)
    with pytest.raises(inbox.Unreadable, match="name too long"):
        read(locator_of(tmp_path / ("x" * 256)), 10)


def test_errors_survive_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(inbox.TooLarge("file:///a", "too large")))
    assert (type(error), error.locator, error.reason) == (inbox.TooLarge, "file:///a", "too large")


def test_an_empty_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    assert read(locator_of(tmp_path / "a.jpg"), 10).data == b""


def test_the_time_a_file_was_written_comes_with_its_bytes(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(b"a")
    os.utime(file, (1e9, 1e9))
    modified = read(locator_of(file), 10).modified_at
    assert modified is not None
    assert modified.isoformat() == "2001-09-09T01:46:40+00:00"


def test_a_file_that_was_written_to_has_another_token_and_one_with_another_inode_has_not(
    tmp_path: Path,
) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(b"a")
    first = listed(tmp_path)["a.jpg"].token
    assert listed(tmp_path)["a.jpg"].token == first
    (tmp_path / "b").write_bytes(b"a")
    os.utime(tmp_path / "b", ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    (tmp_path / "b").rename(file)  # as where a share is mounted again
    assert listed(tmp_path)["a.jpg"].token == first
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))
    assert listed(tmp_path)["a.jpg"].token != first


def test_a_file_that_grows_while_it_is_read_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(b"half")
    really_read = os.read

    def read_as_it_grows(descriptor: int, length: int) -> bytes:
        data = really_read(descriptor, length)
        with file.open("ab") as writer:
            writer.write(b"more")
        return data

    monkeypatch.setattr(os, "read", read_as_it_grows)
    with pytest.raises(inbox.Changed) as changed:
        read(locator_of(file), 100)
    assert changed.value.reason == "changed while it was read"


def test_a_reader_sees_whole_files_or_changed_while_a_writer_rewrites(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(b"0" * 100_000)
    stop = threading.Event()

    def rewrite() -> None:
        number = 0
        while not stop.is_set():
            number = (number + 1) % 10
            with file.open("r+b") as writer:
                writer.write(b"%d" % number * 50_000)
                writer.write(b"%d" % number * 50_000)

    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        for _ in range(50):
            try:
                assert len(read(locator_of(file), 1_000_000).data) == 100_000
            except inbox.Changed:
                continue
    finally:
        stop.set()
        writer.join()


def test_a_failing_disk_or_share_is_unreachable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"a")

    def broken(*_: object) -> bytes:
        raise OSError(5, os.strerror(5))

    monkeypatch.setattr(os, "read", broken)
    with pytest.raises(inbox.Unreachable, match="cannot be read: Input/output error"):
        read(locator_of(tmp_path / "a.jpg"), 10)


@pytest.mark.parametrize("name", ["EACCES", "EPERM", "EKEYEXPIRED", "EREMOTEIO", "ESTALE", "EBUSY"])
def test_a_fault_that_may_pass_is_not_the_files_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"a")
    number = getattr(errno, name)

    def refuse(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        with pytest.raises(inbox.Unreachable):
            read(locator_of(tmp_path / "a.jpg"), 10)


class Listing(contextlib.closing[Any]):
    """What `os.scandir` returns: it can be closed at once, or at the end of a block."""

    def close(self) -> None: ...


class Entry:
    """A file whose status its share does not tell."""

    def __init__(self, path: Path) -> None:
        self.name, self.path = os.fsencode(path.name), os.fsencode(path)

    def is_dir(self, **_: bool) -> bool:
        return False

    def stat(self, **_: bool) -> None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))


def test_a_listing_that_breaks_off_shows_the_folder_and_what_cannot_be_looked_at_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def listing() -> Iterator[Entry]:
        yield Entry(tmp_path / "a.jpg")
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", lambda _: Listing(listing()))
        (file, folder) = scan(tmp_path)
    assert (file.locator, file.is_unknown) == (locator_of(tmp_path / "a.jpg"), True)
    assert (folder.is_folder, folder.refused) == (
        True,
        "folder cannot be listed: Input/output error",
    )


def test_what_may_not_be_read_is_left_to_the_next_run() -> None:
    """As another user where we are root, whom no permission stops."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        (root / "locked").mkdir(mode=0o700)
        (root / "locked" / "inside.jpg").write_bytes(b"a")
        (root / "a.jpg").write_bytes(b"a")
        (root / "a.jpg").chmod(0)
        (root / "locked").chmod(0)
        child = os.fork()
        if child == 0:
            ok = False
            try:
                if os.geteuid() == 0:
                    os.setgroups([])
                    os.setgid(65534)
                    os.setuid(65534)
                arrivals = listed(root)
                assert set(arrivals) == {"locked", "a.jpg"}
                assert arrivals["locked"].refused == "folder cannot be listed: Permission denied"
                with pytest.raises(inbox.Unreachable, match="cannot be read: Permission denied"):
                    read(arrivals["a.jpg"].locator, 10)
                ok = True
            finally:
                os._exit(0 if ok else 1)
        _, status = os.waitpid(child, 0)
        (root / "locked").chmod(0o700)
        assert status == 0


def test_a_path_too_long_to_open_is_shown_and_ends_nothing(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    depth = 0
    for _ in range(20):  # 20 x 250 bytes: beyond what one path may have
        os.mkdir("d" * 250, dir_fd=here)
        below = os.open("d" * 250, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here, depth = below, depth + 1
    os.close(here)
    (tmp_path / "a.jpg").write_bytes(b"a")
    arrivals = list(scan(tmp_path))
    assert sorted(a.refused or "" for a in arrivals) == [
        "",
        "folder cannot be listed: File name too long",
    ]


def test_listing_streams(tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / f"{number}.jpg").write_bytes(b"")
    arrivals = scan(tmp_path)
    first = next(arrivals)
    for number in range(100):
        (tmp_path / f"{number}.jpg").unlink()  # what is not yet looked at vanishes: no error
    rest = list(arrivals)
    assert first.locator not in {a.locator for a in rest}
    assert len(rest) < 100
