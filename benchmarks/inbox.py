"""How long does listing the inbox take, and reading some of its files?

`python -m benchmarks.inbox [files to read]` lists what SHOETAGGER_INBOX names, and reads the first
files in as many threads as a night does. It writes nothing anywhere.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from shoetagger.config.settings import Settings
from shoetagger.ingest.fetching import THREADS
from shoetagger.ingest.places import inbox_at

_MOST_BYTES = 50_000_000


def main(to_read: int) -> None:
    inbox = inbox_at(Settings.from_environment().inbox)
    memory, clock, cpu = _peak(), time.monotonic(), time.process_time()
    found = sum(1 for _ in inbox.scan())
    seconds, used = time.monotonic() - clock, time.process_time() - cpu
    print(
        f"{found} files listed in {seconds:.1f} s, {used:.2f} s of CPU; "
        f"at most {_peak():.0f} MB of memory, {memory:.0f} MB before"
    )
    locators = [arrival.locator for arrival in islice(inbox.scan(), to_read)]
    clock, cpu = time.monotonic(), time.process_time()
    with ThreadPoolExecutor(THREADS) as threads:
        sizes = list(threads.map(lambda each: len(inbox.read(each, _MOST_BYTES).data), locators))
    seconds = time.monotonic() - clock
    print(
        f"{len(sizes)} of {sum(sizes) / max(1, len(sizes)) / 1000:.0f} kB read in {seconds:.1f} s "
        f"({len(sizes) / seconds:.0f} per second), {time.process_time() - cpu:.2f} s of CPU"
    )


def _peak() -> float:
    """Return the most memory that this process has had, in MB."""
    # Not `ru_maxrss`, which knows of the process that started this one.
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
