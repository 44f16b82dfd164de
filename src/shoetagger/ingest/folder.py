"""An inbox in a folder: lists it and reads its files, whatever they are.

A locator is `file://` and the percent-encoded bytes of an absolute path.
"""

# Names are bytes here, which pathlib does not take:
# ruff: noqa: PTH100, PTH115, PTH116, PTH123

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes

from ..config.places import FILE
from .inbox import (
    ELSEWHERE,
    Arrival,
    Changed,
    Content,
    Gone,
    InboxError,
    ReadError,
    TooLarge,
    Unreachable,
    Unreadable,
)

_GONE = (errno.ENOENT, errno.ENOTDIR)
# What lies in the file and stays as it is. Everything else may pass, such as a share that does not
# answer, a ticket that has run out, permissions that are set in a moment, too many open files.
_FAULTS_OF_THE_FILE = frozenset(
    {errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO, errno.EISDIR, errno.EFBIG, errno.EOVERFLOW}
)

_UNKNOWN = "?"  # the token of no file: once its status can be read, a file counts as changed


@dataclass(frozen=True)
class Folder:
    """The inbox in the folder `root`, which bounds symbolic links."""

    root: Path
    # Each decoding process reads by itself: a disk or share that hangs then holds up that one only.
    fetched_ahead = 0

    def scan(self, *, state: Path | None = None) -> Iterator[Arrival]:
        """Yield as `scan` does."""
        return scan(self.root, state=state)

    def read(self, locator: str, max_bytes: int) -> Content:
        """Read as `read` does, below the root; what lies in a bucket is out of reach."""
        if not locator.startswith(FILE):
            raise Unreachable(locator, ELSEWHERE)
        return read(locator, max_bytes, root=self.root)


def locator_of(path: Path | str | bytes) -> str:
    """Return the locator of a path, made absolute and without `.`, `..` or doubled slashes."""
    return FILE + quote_from_bytes(os.path.abspath(os.fsencode(path)))


def path_of(locator: str) -> Path:
    """Return the path that a locator names; raises InboxError where it names no local file."""
    return Path(os.fsdecode(_bytes_of(locator)))


def scan(root: Path, *, state: Path | None = None) -> Iterator[Arrival]:
    """Yield everything below `root` that is not a plain folder, one at a time, in any order.

    What is hidden, by a name that begins with a dot, is left out with all that is in it, and so is
    the folder `state`, where shoetagger keeps what it makes. Regular files are yielded to be read,
    and so are symbolic links to regular files inside `root`, as a second name of them. Links out of
    it, to folders or to nothing, FIFOs, sockets, devices and folders that cannot be listed are
    yielded as refused, with the reason. No link to a folder is followed, only folders are opened,
    and what vanishes meanwhile is left out. Raises InboxError where `root` cannot be listed, or is
    the folder `state`.
    """
    top = os.path.abspath(os.fsencode(root))
    try:
        os.scandir(top).close()
    except OSError as error:
        raise InboxError(_no_inbox(root, error)) from None
    beneath = os.path.realpath(top)
    left_out = _path_below(top, beneath, state) if state else None
    folders = [top]
    while folders:
        folder = folders.pop()
        prefix = FILE + quote_from_bytes(folder).rstrip("/") + "/"
        for entry in _entries(folder):
            if isinstance(entry, OSError):
                refused = _refused_folder(folder, entry)
                if refused:
                    yield refused
            elif entry.name.startswith(b".") or entry.path == left_out:
                continue
            elif entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            else:
                arrival = _arrival(prefix + quote_from_bytes(entry.name), entry, beneath)
                if arrival:
                    yield arrival


def read(locator: str, max_bytes: int, *, root: Path | None = None) -> Content:
    """Return a regular file's bytes, all of one moment, at most `max_bytes` of them.

    Without `root` a symbolic link is Unreadable; with it, links (on the way or at the end) are
    followed as long as the file really lies below `root`. Raises Gone, Changed, Unreachable,
    TooLarge or Unreadable. FIFOs and devices are never opened, and nothing here waits for a writer.
    """
    path = _bytes_of(locator)
    follow = os.O_NOFOLLOW if root is None else 0
    try:
        # O_PATH names the thing without opening it: what is then checked is what is then opened.
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC | follow)
    except OSError as error:
        raise _failed(locator, error) from None
    try:
        before = os.fstat(handle)
        _check_readable(locator, handle, before, root)
        if before.st_size > max_bytes:
            raise TooLarge(locator, f"too large ({before.st_size} bytes, limit {max_bytes})")
        reopened = os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(reopened, "rb", buffering=0) as file:
            data = _read_all(file.fileno(), before.st_size)
            after = os.fstat(reopened)
    except OSError as error:
        raise _failed(locator, error) from None
    finally:
        os.close(handle)
    if len(data) != before.st_size or _token(after) != _token(before):
        raise Changed(locator, "changed while it was read")
    return Content(data, _token(before), datetime.fromtimestamp(before.st_mtime, UTC))


def _bytes_of(locator: str) -> bytes:
    path = unquote_to_bytes(locator.removeprefix(FILE))
    if not locator.startswith(FILE + "/") or b"\0" in path:
        raise InboxError(
            f"{locator!r} names no local file: a locator looks like file:///folder/name"
        )
    return path


def _entries(folder: bytes) -> Iterator[os.DirEntry[bytes] | OSError]:
    """Yield what is in a folder, and the error that ends its listing early, if one does."""
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError as error:
        yield error


def _path_below(top: bytes, beneath: bytes, state: Path) -> bytes | None:
    """Return the path under which `top`, whose real path is `beneath`, shows the folder `state`."""
    really = os.path.realpath(os.fsencode(state))
    if really == beneath:
        raise InboxError(
            f"the inbox {os.fsdecode(top)} is the folder of the state as well: set "
            "SHOETAGGER_INBOX to the folder of the pictures"
        )
    return top + really[len(beneath) :] if _is_beneath(really, beneath) else None


def _arrival(locator: str, entry: os.DirEntry[bytes], beneath: bytes) -> Arrival | None:
    """Return what an entry other than a folder is; None for one that has gone since."""
    try:
        status = entry.stat(follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            return _link(locator, entry.path, status, beneath)
    except OSError as error:
        if error.errno in _GONE:
            return None
        return Arrival(locator, _UNKNOWN, is_unknown=True)
    if stat.S_ISREG(status.st_mode):
        return Arrival(locator, _token(status))
    return Arrival(locator, _token(status), _kind(status.st_mode))


def _token(status: os.stat_result) -> str:
    """Return what changes when a file is written to.

    Without the inode's number, which sshfs and SMB choose again with each mount: all files would
    be read again. So a file put in the place of one that has the same size and time is noticed
    only when it is next read: for a new model at the latest.
    """
    return f"{status.st_size}-{status.st_mtime_ns}"


def _no_inbox(root: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"the inbox {root} does not exist: create it, or set SHOETAGGER_INBOX to the folder"
    if isinstance(error, NotADirectoryError):
        return f"the inbox {root} is no folder: set SHOETAGGER_INBOX to the folder of the pictures"
    return f"the inbox {root} cannot be listed ({error.strerror}): see to its permissions or mount"


def _refused_folder(folder: bytes, error: OSError) -> Arrival | None:
    """Return a folder that cannot be listed, so that a person sees it; None if it is gone."""
    try:
        status = os.lstat(folder)
    except FileNotFoundError:
        return None
    except OSError:
        token = "0-0"  # so deep that even its status cannot be read
    else:
        token = _token(status)
    reason = f"folder cannot be listed: {error.strerror}"
    return Arrival(locator_of(folder), token, reason, is_folder=True)


def _link(locator: str, path: bytes, status: os.stat_result, beneath: bytes) -> Arrival:
    try:
        target = os.stat(path)
        inside = _is_beneath(os.path.realpath(path), beneath)
    except OSError as error:
        if error.errno not in (*_GONE, errno.ELOOP):
            raise
        return Arrival(locator, _token(status), "a symbolic link that leads nowhere")
    if stat.S_ISDIR(target.st_mode):
        return Arrival(locator, _token(status), "a symbolic link to a folder")
    if not inside:
        return Arrival(locator, _token(status), "a symbolic link out of the inbox")
    if not stat.S_ISREG(target.st_mode):
        return Arrival(locator, _token(status), f"a symbolic link to {_kind(target.st_mode)}")
    return Arrival(locator, _token(target))


def _is_beneath(path: bytes, root: bytes) -> bool:
    return path.startswith(root.rstrip(b"/") + b"/")


def _kind(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "a FIFO, not a file"
    if stat.S_ISSOCK(mode):
        return "a socket, not a file"
    return "a device, not a file"


def _check_readable(locator: str, handle: int, status: os.stat_result, root: Path | None) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise Gone(locator, "a folder of this name took the file's place")
    if stat.S_ISLNK(status.st_mode):
        raise Unreadable(locator, "a symbolic link")
    if not stat.S_ISREG(status.st_mode):
        raise Unreadable(locator, _kind(status.st_mode))
    if root is not None:
        really = os.readlink(f"/proc/self/fd/{handle}".encode())
        if not _is_beneath(really, os.path.realpath(os.fsencode(root))):
            if status.st_nlink == 0:
                raise Gone(
                    locator, "gone"
                )  # deleted meanwhile: the kernel no longer knows its path
            raise Unreadable(locator, "a symbolic link out of the inbox")


def _read_all(descriptor: int, size: int) -> bytes:
    """Read up to one byte more than `size`, so that growth shows."""
    pieces = []
    missing = size + 1
    while missing > 0 and (piece := os.read(descriptor, missing)):
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)


def _failed(locator: str, error: OSError) -> ReadError:
    if error.errno in _GONE:
        return Gone(locator, "gone")
    if error.errno == errno.ELOOP:
        return Unreadable(locator, "a symbolic link that leads nowhere")
    kind = Unreadable if error.errno in _FAULTS_OF_THE_FILE else Unreachable
    return kind(locator, f"cannot be read: {error.strerror}")
