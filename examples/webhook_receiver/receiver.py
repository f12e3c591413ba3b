"""A webhook receiver to copy: checks the signature, takes every message once, may refuse before a send.

    pip install quart-trio
    SECRET=s3cret python receiver.py 127.0.0.1:8080

and in the server's configuration

    webhook: {httpAddr: "http://127.0.0.1:8080/webhook", secret: s3cret, preSend: {url: "http://127.0.0.1:8080/webhook"}}
"""

import base64
import gzip
import hmac
import json
import os
import sys
import time
from collections import OrderedDict

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from quart import Response, request
from quart_trio import QuartTrio

OLDEST_S = 300
"""A signature older than this may have been recorded by somebody and is not believed."""
REMEMBERED = 100_000
"""A repeat comes soon. Who must be sure keeps message ids in the database, under a unique key."""

app = QuartTrio("receiver")
secret = os.environ.get("SECRET", "")
seen: OrderedDict[str, None] = OrderedDict()


def is_genuine(headers: dict[str, str], body: bytes) -> bool:
    """Whether the server signed this body a short time ago."""
    timestamp = headers.get("X-Triolet-Timestamp", "")
    if not timestamp.isdigit() or abs(time.time() - int(timestamp)) > OLDEST_S:
        return False
    expected = hmac.digest(secret.encode(), timestamp.encode() + b"." + body, "sha256").hex()
    return hmac.compare_digest(headers.get("X-Triolet-Signature", ""), f"sha256={expected}")


def is_new(key: str) -> bool:
    """Whether this has not been handled yet; remembers it."""
    if key in seen:
        return False
    seen[key] = None
    if len(seen) > REMEMBERED:
        seen.popitem(last=False)
    return True


@app.post("/webhook")
async def webhook() -> Response | tuple[str, int]:
    """Take one event. Only an answer of 2xx makes the server go on; anything else brings the event again."""
    body = await request.get_data()
    headers = dict(request.headers)
    if secret and not is_genuine(headers, body):
        return "bad signature", 401
    event = request.args["event"]
    value = json.loads(body)
    if event == "msg.before_send":
        return Response(json.dumps(judge(value)), content_type="application/json")
    handle(event, value, headers.get("X-Triolet-Event-Id", ""))
    return "", 200


def handle(event: str, value: list | dict, event_id: str) -> None:
    """Do what the event asks for. Do slow things elsewhere: the next event waits for this answer."""
    match event:
        case "msg.notify":
            for message in value:
                if is_new(f"notify {message['message_idstr']}"):
                    print(f"{message['from_uid']} -> {message['channel_id']}: {text_of(message)}", flush=True)
        case "msg.offline":
            if is_new(f"offline {event_id}"):
                print(f"push to {', '.join(recipients(value))}: {text_of(value)}", flush=True)
        case "user.onlinestatus":
            for row in value if is_new(f"status {event_id}") else ():
                uid, flag, online, *_ = row.rsplit("-", 5)  # from the right: a uid may hold a dash
                print(f"{uid} is {'online' if online == '1' else 'offline'} with device {flag}", flush=True)
        case _:
            print(f"unknown event {event}", flush=True)


def text_of(message: dict) -> str:
    """Return the payload, which is any bytes to the server."""
    return base64.b64decode(message["payload"]).decode(errors="replace")


def recipients(message: dict) -> list[str]:
    """Return who to push to; a long list comes gzipped (channel.subscriberCompressOfCount)."""
    if message.get("compress") == "gzip":
        return json.loads(gzip.decompress(base64.b64decode(message["compress_to_uids"])))
    return message["to_uids"]


def judge(message: dict) -> dict:
    """Decide on a message before it is stored: refuse it with a reason code, replace it, or let it pass."""
    text = text_of(message)
    if "casino" in text.lower():
        return {"allow": False, "reason": 11}
    if "damn" in text:
        return {"allow": True, "payload": base64.b64encode(text.replace("damn", "****").encode()).decode()}
    return {"allow": True}


async def main(address: str) -> None:
    """Serve until Ctrl-C."""
    config = Config()
    config.bind = [address]
    await serve(app, config)


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8080")
