"""Fuzz for long: `python -m tests.fuzz TARGET SECONDS`. See docs/development/fuzzing.md."""

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz import corpus


def main(target: str, seconds: int) -> int:
    """Fuzz, then keep the smallest set of inputs that reaches everything that was reached."""
    with tempfile.TemporaryDirectory() as name:
        grown, merged = Path(name) / "grown", Path(name) / "merged"
        corpus.unpack(target, grown)
        merged.mkdir()
        run = [sys.executable, "-m", "tests.fuzz.run", "fuzz", target, f"-max_len={corpus.MAX_BYTES}"]
        code = subprocess.run([*run, f"-max_total_time={seconds}", str(grown)], check=False).returncode
        if code:
            return code
        subprocess.run([*run, "-merge=1", str(merged), str(grown)], check=True)
        made = set(corpus.inputs_of(target))
        kept = [path.read_bytes() for path in merged.iterdir()]
        corpus.write(target, kept)
        sys.stdout.write(f"{target}: {len(kept)} inputs kept, {len(set(kept) - made)} of them new\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
