"""Whether every row of a store can be read: run as a program, because a damaged page may end the process.

Used for a file that is shorter than LMDB's page count: pages that a transaction gave and took back are counted and
never written. The caller has filled the missing part with zeros; a row that lies in it shows itself by them.
"""

import subprocess
import sys
from pathlib import Path

import lmdb

_PAGE_HEADER = 16
TIMEOUT_S = 600.0


def is_whole(path: Path) -> bool:
    """Return whether every row can be read, from a process of its own."""
    done = subprocess.run(  # noqa: S603  # this very program
        [sys.executable, "-m", "triolet_core.store._scan", str(path)],
        timeout=TIMEOUT_S,
        check=False,
        capture_output=True,
    )
    return done.returncode == 0


def _look(path: str) -> int:
    with lmdb.open(path, subdir=False, readonly=True, lock=False, readahead=False) as env, env.begin() as txn:
        size = env.stat()["psize"]
        with txn.cursor() as cursor:
            rows = sum(1 for _, value in cursor if not _ends_in_nothing(value, size))
        return 0 if rows == txn.stat()["entries"] else 1


def _ends_in_nothing(value: bytes, page_size: int) -> bool:
    """Whether a value that has pages of its own has nothing but zeros in the last of them."""
    if len(value) <= page_size // 2:
        return False
    in_last_page = (len(value) + _PAGE_HEADER) % page_size or page_size
    return not any(value[-min(in_last_page, len(value)) :])


if __name__ == "__main__":
    sys.exit(_look(sys.argv[1]))
