"""A server in a process of its own, for tests of what talks to it from outside."""

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

FREE_PORTS = ("addr=tcp://127.0.0.1:0", "wsAddr=ws://127.0.0.1:0", "httpAddr=127.0.0.1:0")
_LAST_LINE = "More in README.md"
STOP_S = 20


@contextmanager
def serving(directory: Path, *settings: str) -> Iterator[Mapping[str, str]]:
    """Run a server with its data in a directory and yield its URLs by kind; what it logs is in `server.log` there."""
    with running(directory, *settings) as (_, urls):
        yield urls


@contextmanager
def running(directory: Path, *settings: str) -> Iterator[tuple[int, Mapping[str, str]]]:
    """As `serving`; yields the number of the process as well."""
    values = [f"rootDir={directory / 'root'}", *FREE_PORTS, *settings]
    words = [sys.executable, "-m", "triolet_core", "run", *(word for value in values for word in ("-e", value))]
    log = directory / "server.log"
    with (
        log.open("wb") as errors,
        subprocess.Popen(words, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            lines = []
            for line in process.stdout:
                lines.append(line.split())
                if line.startswith(_LAST_LINE):
                    break
            else:
                raise AssertionError(log.read_text())
            urls = {words[0]: words[1] for words in lines if len(words) == 2 and words[1].startswith(f"{words[0]}://")}
            yield process.pid, urls
            process.send_signal(signal.SIGINT)
            assert process.wait(STOP_S) == 0, log.read_text()
        finally:
            process.kill()
