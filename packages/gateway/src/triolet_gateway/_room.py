"""How many connections the limit of open files allows: each is a descriptor of the process that has its socket."""

import resource
import sys

SPARE_FILES = 64
"""Descriptors of a process for other things: listeners, the store, connections of the API, links to workers."""


def room_of_process() -> int:
    """Return how many sockets of clients one process of this server can have."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if files == resource.RLIM_INFINITY else max(files - SPARE_FILES, 1)


def room_of_server(workers: int) -> int:
    """Return how many connections all workers can have, or the core process where there are none."""
    return min(room_of_process() * max(workers, 1), sys.maxsize)
