"""What the store costs on disk: python -m benchmarks.storage [--seconds S] [--messages N] [-e SETTING=VALUE ...].

Runs a broker in this process, without a gateway, and prints one JSON object: bytes handed to the block layer and CPU
per message at a steady rate and in bulk, the time from sending to acknowledgement, bytes that stay per message, and
how long the filled store takes to open.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from triolet_core import Device, Draft, ServerConfig, open_broker

CHANNELS = 50
IN_FLIGHT = 32
PAYLOAD = b"x" * 64


def written_bytes() -> int:
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["write_bytes"])


@contextmanager
def measured(result: dict[str, Any], name: str, count: int) -> Iterator[list[float]]:
    """Put bytes written, CPU and the latencies that the block collects into `result`, per message."""
    latencies: list[float] = []
    before, cpu, began = written_bytes(), time.process_time(), time.perf_counter()
    yield latencies
    took = time.perf_counter() - began
    latencies.sort()
    result[name] = {
        "messages": count,
        "per_second": round(count / took),
        "written_bytes_each": round((written_bytes() - before) / count),
        "cpu_us_each": round((time.process_time() - cpu) / count * 1e6, 1),
        "ack_ms_p50": round(latencies[len(latencies) // 2] * 1000, 3),
        "ack_ms_p99": round(latencies[len(latencies) * 99 // 100] * 1000, 3),
    }


def drafts(channel: int, first: int, count: int) -> list[Draft]:
    return [Draft(f"b{channel}", 1, PAYLOAD, client_msg_no=f"{channel:08x}{first + n:024x}") for n in range(count)]


async def send(broker: Any, channel: int, first: int, count: int, latencies: list[float]) -> None:
    began = time.perf_counter()
    receipts = await broker.messages.send_many(Device(uid=f"a{channel}"), drafts(channel, first, count))
    assert all(receipt.reason == 1 for receipt in receipts)
    latencies.append(time.perf_counter() - began)


async def steady(broker: Any, rate: int, seconds: float, latencies: list[float]) -> int:
    """Send single messages at a rate, channel after channel."""
    began, count = trio.current_time(), round(rate * seconds)
    async with trio.open_nursery() as nursery:
        for number in range(count):
            await trio.sleep_until(began + number / rate)
            nursery.start_soon(send, broker, number % CHANNELS, number, 1, latencies)
    return count


async def bulk(broker: Any, messages: int, latencies: list[float]) -> None:
    """Send as fast as acknowledgements come, in every channel at once."""

    async def fill(channel: int) -> None:
        for first in range(0, messages // CHANNELS, IN_FLIGHT):
            count = min(IN_FLIGHT, messages // CHANNELS - first)
            await send(broker, channel, 1_000_000 + first, count, latencies)

    async with trio.open_nursery() as nursery:
        for channel in range(CHANNELS):
            nursery.start_soon(fill, channel)


async def one_by_one(broker: Any, count: int, latencies: list[float]) -> None:
    """Ten senders with one message in flight each."""

    async def ping(channel: int) -> None:
        for number in range(count // 10):
            await send(broker, channel, 500_000 + number, 1, latencies)

    async with trio.open_nursery() as nursery:
        for channel in range(10):
            nursery.start_soon(ping, channel)


async def measure(directory: str, args: argparse.Namespace) -> dict[str, Any]:
    config = ServerConfig()
    node = attrs.evolve(config.node, data_dir=directory)
    config = attrs.evolve(config, node=node, store=attrs.evolve(config.store, sync=args.sync))
    result: dict[str, Any] = {"sync": args.sync}
    async with open_broker(config) as broker:
        for channel in range(CHANNELS):
            await send(broker, channel, 2_000_000, 1, [])
        count = round(args.rate * args.seconds)
        with measured(result, f"steady_{args.rate}", count) as latencies:
            await steady(broker, args.rate, args.seconds, latencies)
        with measured(result, "window_1", args.messages // 10) as latencies:
            await one_by_one(broker, args.messages // 10, latencies)
        await broker.flush()
        before, rows = broker.catalog.size(), broker.commits.appended_count
        with measured(result, "bulk", args.messages) as latencies:
            await bulk(broker, args.messages, latencies)
            await broker.flush()
        stored = broker.commits.appended_count - rows
    began = time.perf_counter()
    async with open_broker(config) as broker:
        result["open_s"] = round(time.perf_counter() - began, 3)
        size = broker.catalog.size()
        result["kept_bytes_each"] = round((size.used_bytes - before.used_bytes) / stored)
        result["file_bytes_each"] = round((size.file_bytes - before.file_bytes) / stored)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.storage")
    parser.add_argument("--rate", type=int, default=900, help="messages a second of the steady part")
    parser.add_argument("--seconds", type=float, default=5, help="length of the steady part")
    parser.add_argument("--messages", type=int, default=100_000, help="messages of the bulk part")
    parser.add_argument("--sync", default="full", choices=("full", "nometa", "off"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="triolet-storage-") as directory:
        print(json.dumps(trio.run(measure, directory, args), indent=1))


if __name__ == "__main__":
    main()
