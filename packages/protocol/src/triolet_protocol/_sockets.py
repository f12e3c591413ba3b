"""Many sockets in one call. `triolet_speedups` has the same functions compiled; tests compare them.

The only IO of this package: it is here because it is compiled with the rest of what runs per message.
"""

import os
from collections.abc import Sequence

Left = tuple[int, bytes]
"""(number of a receiver, the end of its frames that its socket did not take)"""


def read_sockets(descriptors: Sequence[int], most: int, enough: int) -> list[bytes | None]:
    """Read once from each of several non-blocking sockets, until `enough` bytes have come from all of them.

    Args:
        descriptors: The sockets.
        most: Bytes that are read from one.
        enough: Bytes after which those that follow are not read any more.

    Returns:
        What came, for as many sockets as were read: b"" where the peer has ended or is lost, None where nothing is now.
    """
    found: list[bytes | None] = []
    for descriptor in descriptors:
        if enough <= 0:
            break
        try:
            data = os.read(descriptor, most)
        except BlockingIOError:
            found.append(None)
            continue
        except OSError:
            data = b""
        found.append(data)
        enough -= len(data)
    return found


def write_sockets(outgoing: Sequence[tuple[int, bytes]]) -> list[Left]:
    """Write to several non-blocking sockets, and return what they did not take, be they full or broken."""
    left: list[Left] = []
    for number, (descriptor, data) in enumerate(outgoing):
        try:
            taken = os.write(descriptor, data)
        except OSError:
            taken = 0
        if taken < len(data):
            left.append((number, data[taken:]))
    return left
