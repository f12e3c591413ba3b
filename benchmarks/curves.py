"""How costs grow: python -m benchmarks.curves [--only CURVE ...] [--most N].

Each point is made on a store of its own, in this process, without sockets, so that only the size differs:

* history: processor time of a send into a channel that already holds so many messages
* channels: the same to 50 channels while the store knows so many, and to channels taken at random from all
* startup: seconds from nothing until a server with every port open answers, with so many messages stored

Writes `results/curves.json`.
"""

import argparse
import json
import random
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trio

from benchmarks.servers import started_in
from triolet_core import Broker, ServerConfig, open_broker
from triolet_core.config import NodeConfig
from triolet_core.model import Device, Draft

RESULTS = Path(__file__).parent / "results"
SIZES = (1_000, 10_000, 100_000, 1_000_000)
SENDER = Device(uid="sender")
BATCH = 256
MEASURED = 20_000
FEW = 50


def config(directory: str) -> ServerConfig:
    """Return the settings of a store in `directory`."""
    return ServerConfig(node=NodeConfig(data_dir=directory))


def cpu() -> float:
    """Return the seconds that this process has computed, all threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def send_all(broker: Broker, channels: Sequence[str], count: int, number: str) -> None:
    """Send `count` messages of 64 bytes, spread over channels of a person each; several batches wait at a time."""
    batches = iter(range(0, count, BATCH))

    async def send_some() -> None:
        for start in batches:
            drafts = [
                Draft(channels[at % len(channels)], 1, b"x" * 64, f"{number}-{at:032x}")
                for at in range(start, min(start + BATCH, count))
            ]
            receipts = await broker.messages.send_many(SENDER, drafts)
            assert all(receipt.reason == 1 for receipt in receipts)

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(send_some)


async def cost_of(broker: Broker, channels: Sequence[str]) -> float:
    """Return the microseconds of processor time of a send."""
    await send_all(broker, channels[:FEW], 2_000, "warm")
    before = cpu()
    await send_all(broker, channels, MEASURED, "measured")
    return round((cpu() - before) / MEASURED * 1e6, 2)


async def history(size: int) -> dict[str, Any]:
    """Measure sends behind `size` messages of one channel."""
    with tempfile.TemporaryDirectory(prefix="triolet-curve-") as directory:
        async with open_broker(config(directory)) as broker:
            await send_all(broker, ["receiver"], size, "before")
            return {"size": size, "us_per_send": await cost_of(broker, ["receiver"])}


async def channels(size: int) -> dict[str, Any]:
    """Measure sends among `size` channels."""
    names = [f"receiver{number}" for number in range(size)]
    with tempfile.TemporaryDirectory(prefix="triolet-curve-") as directory:
        async with open_broker(config(directory)) as broker:
            await send_all(broker, names, size, "before")
            few = await cost_of(broker, names[:FEW])
            chosen = random.Random(size).choices(names, k=MEASURED)  # a load, no secret
            return {"size": size, "us_per_send": few, "us_per_send_at_random": await cost_of(broker, chosen)}


async def startup(size: int) -> dict[str, Any]:
    """Measure a start with `size` messages in 1,000 channels."""
    with tempfile.TemporaryDirectory(prefix="triolet-curve-") as directory:
        async with open_broker(config(str(Path(directory) / "data"))) as broker:
            await send_all(broker, [f"receiver{number}" for number in range(1_000)], size, "before")
        times = []
        for _ in range(3):
            begin = time.perf_counter()
            with started_in(directory, []):
                times.append(time.perf_counter() - begin)
        return {"size": size, "seconds": round(sorted(times)[1], 3)}


CURVES = {"history": history, "channels": channels, "startup": startup}


def main() -> None:
    """Measure the curves and write them down."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.curves")
    parser.add_argument("--only", nargs="+", choices=CURVES, default=list(CURVES))
    parser.add_argument("--most", type=int, default=SIZES[-1], help="the largest size")
    args = parser.parse_args()
    found: dict[str, Any] = {}
    for name in args.only:
        found[name] = []
        for size in [size for size in SIZES if size <= args.most]:
            point = trio.run(CURVES[name], size)
            found[name].append(point)
            print(name, *(f"{key}={value:,}" for key, value in point.items()), flush=True)
    path = RESULTS / "curves.json"
    path.write_text(json.dumps(found, indent=1) + "\n")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
