"""A StatsD server for the tests: a UDP socket on loopback that keeps what arrives."""

from __future__ import annotations

import re
import socket
import threading
from collections import Counter

HOST = "127.0.0.1"


class Collector:
    """Listens on a free port within a `with` block.

    A thread reads all the time: the kernel keeps but some hundred packets, and drops the rest.
    """

    def __enter__(self) -> Collector:
        self._packets: list[bytes] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((HOST, 0))
        self._socket.settimeout(0.1)
        self.port = int(self._socket.getsockname()[1])
        self._ended = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._reader.join()
        self._socket.close()

    def _read(self) -> None:
        while not self._ended.is_set():
            try:
                self._packets.append(self._socket.recv(65536))
            except TimeoutError:
                continue

    def received(self) -> tuple[Counter[str], dict[str, list[float]]]:
        """Return the sums of the counters and the values of the gauges that have arrived."""
        counters: Counter[str] = Counter()
        gauges: dict[str, list[float]] = {}
        for line in b"\n".join(self._packets).decode().splitlines():
            metric = re.fullmatch(r"([^:]+):([^|]+)\|(c|g|ms)(?:\|.*)?", line)
            assert metric, line
            name, value, kind = metric.groups()
            if kind == "c":
                counters[name] += int(value)
            elif kind == "g":
                gauges.setdefault(name, []).append(float(value))
        return counters, gauges
