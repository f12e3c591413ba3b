"""Whether memory stays flat: python -m benchmarks.churn [--minutes M].

Rounds of what an hour brings, as fast as it goes: clients log in, send to a person and to a group, subscribe, and
leave with and without a good-bye; a backend makes channels, sends, reads and deletes. Every round has new uids and
new channels, so that whatever is kept per uid or per channel shows. After each round the server's anonymous memory
(without the store's mapped pages), its descriptors and its connections are noted. Writes `results/churn.json`, and
ends with 1 if memory in the last quarter is above that of the second one by more than 5 %.
"""

import argparse
import base64
import json
import socket
import statistics
import struct
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import trio

from benchmarks.load import Peer, open_all
from benchmarks.servers import RunningServer, started

RESULTS = Path(__file__).parent / "results"
CLIENTS = 100
MESSAGES = 20
PERSON, GROUP = 1, 2
RESET_EACH = 3
GROWTH = 1.05
RESET = struct.pack("ii", 1, 0)
ROUND_TIMEOUT_S = 60
SETTINGS = ("message.dedupeEntries=10000", "channel.cacheCount=2000", "presence.lastSeenCount=5000")
"""What is remembered for a time or up to a number is full after some rounds."""


async def client(peer: Peer, to: str, group: str, *, is_reset: bool) -> None:
    """Send, read what comes of it, and leave."""
    try:
        await peer.stream.send_all(peer.messages(to, PERSON, MESSAGES))
        await peer.stream.send_all(peer.messages(group, GROUP, 2))
        acked = 0
        while acked < MESSAGES + 2:
            acked += await peer.read()
        if is_reset:
            peer.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    finally:
        await peer.stream.aclose()


async def backend(http: httpx.AsyncClient, group: str, uids: list[str]) -> None:
    """Use the API as a backend does: a group, messages, history, conversations, and the end of a channel."""

    async def post(path: str, body: Any) -> None:
        answer = await http.post(path, json=body)
        answer.raise_for_status()

    payload = base64.b64encode(b"hello").decode()
    await post("/channel", {"channel_id": group, "channel_type": GROUP, "subscribers": uids})
    for uid in uids[:10]:
        await post("/user/token", {"uid": uid, "token": "t", "device_flag": 0, "device_level": 1})
        message = {"from_uid": uid, "channel_id": group, "channel_type": GROUP, "payload": payload}
        await post("/message/send", message)
        await post("/conversation/sync", {"uid": uid, "version": 0, "msg_count": 3})
        await post("/channel/messagesync", {"login_uid": uid, "channel_id": group, "channel_type": GROUP, "limit": 10})


async def one_round(server: RunningServer, http: httpx.AsyncClient, number: int) -> None:
    """Do everything once."""
    group, uids = f"g{number}", [f"u{number}-{each}" for each in range(CLIENTS)]
    with trio.fail_after(ROUND_TIMEOUT_S):
        await backend(http, group, uids)
        peers = [Peer(uid) for uid in uids]
        await open_all(peers, server.addresses["tcp"])
        async with trio.open_nursery() as nursery:
            for place, peer in enumerate(peers):
                to = uids[(place + 1) % CLIENTS]
                nursery.start_soon(partial(client, peer, to, group, is_reset=not place % RESET_EACH))
        answer = await http.post("/channel/delete", json={"channel_id": group, "channel_type": GROUP})
        answer.raise_for_status()


async def churn(server: RunningServer, seconds: float) -> list[dict[str, float]]:
    """Do rounds for so long; returns a row for each."""
    rows: list[dict[str, float]] = []
    begin = time.monotonic()
    async with httpx.AsyncClient(base_url=f"http://{server.addresses['http']}", timeout=30) as http:
        while time.monotonic() - begin < seconds:
            await one_round(server, http, len(rows))
            varz = (await http.get("/varz")).json()
            rows.append(
                {
                    "seconds": round(time.monotonic() - begin, 1),
                    "rss_anon_mb": round(server.rss_kb("RssAnon") / 1024, 2),
                    "files": server.open_files(),
                    "connections": varz["connections"],
                }
            )
            if not len(rows) % 10:
                print(len(rows), *(f"{key}={value}" for key, value in rows[-1].items()), flush=True)
    return rows


def growth(rows: list[dict[str, float]]) -> float:
    """Return memory in the last quarter of the rounds divided by that in the second one."""
    quarter = max(1, len(rows) // 4)
    memory = [row["rss_anon_mb"] for row in rows]
    return statistics.median(memory[-quarter:]) / statistics.median(memory[quarter : 2 * quarter] or memory)


def main() -> None:
    """Run, write the rows down, and judge."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.churn")
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("-e", dest="settings", action="append", default=[], help="a setting of the server")
    args = parser.parse_args()
    with started([*SETTINGS, *args.settings]) as server:
        rows = trio.run(churn, server, args.minutes * 60)
    ratio = round(growth(rows), 3)
    path = RESULTS / "churn.json"
    path.write_text(json.dumps({"growth": ratio, "rounds": len(rows), "rows": rows}, indent=1) + "\n")
    print(f"{len(rows)} rounds of {CLIENTS} clients, memory of the last quarter to the second: {ratio}; {path}")
    sys.exit(ratio > GROWTH)


if __name__ == "__main__":
    main()
