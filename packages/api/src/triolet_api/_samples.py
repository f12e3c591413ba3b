"""Samples of the counters, so that charts work without Prometheus: one a second for a minute, one in ten seconds for
a day."""

import resource
import time
from collections import deque
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import attrs
import trio

from triolet_core import Broker

FINE_S, FINE_COUNT = 1, 62
COARSE_S, COARSE_COUNT = 10, 8641
_PACKETS = {
    "send": "app_send_packet",
    "sendack": "app_sendack_packet",
    "recv": "app_recv_packet",
    "recvack": "app_recvack_packet",
    "conn": "app_conn_packet",
    "connack": "app_connack_packet",
    "ping": "app_ping",
    "pong": "app_pong",
}


@attrs.frozen
class Sample:
    """The counters at one moment."""

    at: float
    values: Mapping[str, float]


class Samples:
    """Two rings of samples, and the task that fills them."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.fine: deque[Sample] = deque(maxlen=FINE_COUNT)
        self.coarse: deque[Sample] = deque(maxlen=COARSE_COUNT)

    async def run(self) -> None:
        """Take a sample each second."""
        count = 0
        while True:
            self.take(is_coarse=not count % COARSE_S)
            count += 1
            await trio.sleep(FINE_S)

    def take(self, *, is_coarse: bool) -> None:
        """Take a sample now."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        values = {
            **self._broker.metrics.values(),
            **self._broker.metrics.compatible_values(),
            "cpu_s": usage.ru_utime + usage.ru_stime,
            "rss": usage.ru_maxrss * 1024,
            "tasks": trio.lowlevel.current_statistics().tasks_living,
        }
        sample = Sample(time.time(), values)
        self.fine.append(sample)
        if is_coarse:
            self.coarse.append(sample)


def points(samples: Samples, kind: str, latest: int) -> list[dict[str, Any]]:
    """Return the points of a chart of the last `latest` seconds (http-api.md, section 8.4)."""
    ring = samples.fine if latest <= FINE_COUNT else samples.coarse
    since = time.time() - latest
    kept = [sample for sample in ring if sample.at >= since]
    make = {"app": _app_point, "cluster": _cluster_point, "system": _system_point}[kind]
    return [make(before, after) for before, after in pairwise(kept)]


def _rate(before: Sample, after: Sample, name: str) -> float:
    gone = after.at - before.at
    return round((after.values.get(name, 0) - before.values.get(name, 0)) / gone, 3) if gone > 0 else 0.0


def _app_point(before: Sample, after: Sample) -> dict[str, Any]:
    point: dict[str, Any] = {
        "conn_count": after.values.get("app_conn_count_total", 0),
        "online_user_count": after.values.get("app_online_user_count_total", 0),
        "online_device_count": after.values.get("app_online_device_count_total", 0),
        "timestamp": int(after.at),
    }
    for name, counter in _PACKETS.items():
        point[f"{name}_packet_count_rate"] = _rate(before, after, f"{counter}_count_total")
        point[f"{name}_packet_bytes_rate"] = _rate(before, after, f"{counter}_bytes_total")
    return point


def _cluster_point(before: Sample, after: Sample) -> dict[str, Any]:
    """One node: what it stores is what it proposes; nothing goes to other nodes."""

    def one(value: float) -> list[dict[str, Any]]:
        return [{"label": "1", "value": value}]

    return {
        "channel_propose_count_rate": one(_rate(before, after, "broker_committed_messages_total")),
        "channel_propose_failed_count_rate": one(_rate(before, after, "broker_refused_messages_total")),
        "sendpacket_incoming_count_rate": one(_rate(before, after, "gateway_sends_total")),
        "msg_incoming_count_rate": one(0.0),
        "msg_outgoing_count_rate": one(0.0),
        "channel_active_count": one(after.values.get("broker_online_users", 0)),
        "timestamp": int(after.at),
    }


def _system_point(before: Sample, after: Sample) -> dict[str, Any]:
    return {
        "intranet_incoming_bytes_rate": 0.0,
        "intranet_outgoing_bytes_rate": 0.0,
        "extranet_incoming_bytes_rate": _rate(before, after, "gateway_bytes_in_total"),
        "extranet_outgoing_bytes_rate": _rate(before, after, "gateway_bytes_out_total"),
        "memstats_alloc_bytes": after.values["rss"],
        "goroutines": after.values["tasks"],
        "gc_duration_seconds_count": 0,
        "cpu_percent": round(_rate(before, after, "cpu_s") * 100, 2),
        "filefd_allocated": after.values.get("gateway_connections", 0),
        "timestamp": int(after.at),
    }


def chart(samples: Samples) -> dict[str, list[float]]:
    """Return 60 samples, one a second, as WuKongIM 1.2.6's monitor draws them; zeros where there was no server yet."""
    kept = list(samples.fine)
    pairs = list(pairwise(kept))[-60:]

    def filled(values: list[float]) -> list[float]:
        return [0.0] * (60 - len(values)) + values

    return {
        "conn_nums": filled([after.values.get("gateway_connections", 0) for _, after in pairs]),
        "upstream_packets": filled([_rate(*pair, "gateway_sends_total") for pair in pairs]),
        "upstream_traffics": filled([_rate(*pair, "gateway_bytes_in_total") for pair in pairs]),
        "downstream_packets": filled([_rate(*pair, "gateway_receives_total") for pair in pairs]),
        "downstream_traffics": filled([_rate(*pair, "gateway_bytes_out_total") for pair in pairs]),
    }
