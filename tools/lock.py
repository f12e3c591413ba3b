"""Write uv.lock without the addresses of the index it was resolved against.

The lock then says what (versions, hashes), not where from: `make setup` exports it and installs by
hash from whatever index or mirror the machine is set up for.

Usage: python tools/lock.py PATH_TO_UV
"""

import pathlib
import re
import subprocess
import sys

LOCK = pathlib.Path("uv.lock")
PLACEHOLDER = "https://index.invalid"


def main() -> None:
    """Resolve, then strip the addresses."""
    subprocess.run([sys.argv[1], "lock"], check=True)
    text = LOCK.read_text()
    text = re.sub(r'registry = "[^"]*"', f'registry = "{PLACEHOLDER}/simple"', text)
    text = re.sub(r'url = "[^"]*/([^/"]+)"', rf'url = "{PLACEHOLDER}/\1"', text)
    LOCK.write_text(text)


if __name__ == "__main__":
    main()
