"""A server in a process of its own, on free loopback ports, and what it costs."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs

TICK = os.sysconf("SC_CLK_TCK")
STOP_TIMEOUT_S = 60
UNCACHED = "PYTHONDONTWRITEBYTECODE"
"""Where this is set, each start compiles every module anew, half a second of it; an installed server does not."""
PORTS = {"addr": "tcp", "wsAddr": "ws", "httpAddr": "http"}
"""The settings of the listeners, and what the server calls them when it says where they are."""


@attrs.frozen
class Taken:
    """Memory of one process or of several."""

    rss_mb: float = 0.0
    """Resident; pages that several processes share count for each of them."""
    pss_mb: float = 0.0
    """The same, where a shared page counts for each with its part."""

    def __add__(self, other: "Taken") -> "Taken":
        return Taken(round(self.rss_mb + other.rss_mb, 1), round(self.pss_mb + other.pss_mb, 1))


@attrs.frozen
class Memory:
    """Memory of a server."""

    core: Taken
    workers: Taken

    @property
    def total(self) -> Taken:
        """Return that of all its processes."""
        return self.core + self.workers


@attrs.frozen
class RunningServer:
    """A server that is ready."""

    pid: int
    addresses: dict[str, str]
    """`host:port` by kind: tcp, ws, http."""
    directory: str

    def cpu_seconds(self) -> float:
        """Return the processor time of the server and of the children that it has waited for."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(int(each) for each in fields[11:15]) / TICK

    def rss_kb(self, kind: str = "VmRSS") -> int:
        """Return resident memory, all of it or `RssAnon`, which leaves out the store's mapped pages."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{kind}:"):
                return int(line.split()[1])
        raise LookupError(kind)

    def memory(self) -> Memory:
        """Return the memory of the core process, and of its workers together."""
        found = [file.read_text().split() for file in Path(f"/proc/{self.pid}/task").glob("*/children")]
        children = [child for each in found for child in each]  # of the threads that started them, while they live
        return Memory(_taken(str(self.pid)), sum((_taken(child) for child in children), start=Taken()))

    def open_files(self) -> int:
        """Return the number of descriptors."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def bytes_written(self) -> int:
        """Return what the server has given to the block layer."""
        for line in Path(f"/proc/{self.pid}/io").read_text().splitlines():
            if line.startswith("write_bytes:"):
                return int(line.split()[1])
        raise LookupError("write_bytes")

    def disk_bytes(self) -> int:
        """Return what its directory takes on the disk."""
        return sum(file.stat().st_blocks * 512 for file in Path(self.directory).rglob("*") if file.is_file())


def _taken(pid: str) -> Taken:
    found = _amounts(Path(f"/proc/{pid}/smaps_rollup"))
    return Taken(round(found["Rss"] / 1024, 1), round(found["Pss"] / 1024, 1))


def kernel_memory() -> dict[str, float]:
    """Return what the kernel of this machine takes, in MB: for objects such as sockets, and for what sockets buffer."""
    pages = next(
        line.split()[-1] for line in Path("/proc/net/sockstat").read_text().splitlines() if line.startswith("TCP:")
    )
    return {
        "slab_mb": _amounts(Path("/proc/meminfo"))["Slab"] / 1024,
        "socket_buffers_mb": int(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20,
    }


def _amounts(path: Path) -> dict[str, int]:
    """Read lines such as `Rss:  12 kB`."""
    lines = [line.split() for line in path.read_text().splitlines()]
    return {line[0].removesuffix(":"): int(line[1]) for line in lines if line[-1] == "kB"}


@contextmanager
def started_in(directory: str, settings: Sequence[str]) -> Iterator[RunningServer]:
    """Run a server with its data in `directory`; ends it."""
    command = [sys.executable, "-m", "triolet_core", "run", "-e", f"rootDir={directory}"]
    for setting in (*(f"{name}=127.0.0.1:0" for name in PORTS), "logger.level=3", *settings):
        command += ["-e", setting]
    environ = {name: value for name, value in os.environ.items() if name != UNCACHED}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ)
    try:
        assert process.stdout is not None
        addresses: dict[str, str] = {}
        for line in process.stdout:
            found = re.match(r"(tcp|ws|http) +\w+://(\S+)", line)
            if found:
                addresses[found[1]] = found[2]
            if len(addresses) == len(PORTS):
                break
        else:
            raise RuntimeError("the server did not start")
        yield RunningServer(process.pid, addresses, directory)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


@contextmanager
def started(settings: Sequence[str]) -> Iterator[RunningServer]:
    """Run a server with an empty directory of its own, and remove that afterwards."""
    directory = tempfile.mkdtemp(prefix="triolet-bench-")
    try:
        with started_in(directory, settings) as server:
            yield server
    finally:
        shutil.rmtree(directory)
