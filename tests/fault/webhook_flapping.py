"""Child of test_webhook_kill: a receiver that is slow, refuses, answers garbage, takes and does not say so, or dies.

Usage: python webhook_flapping.py PORT SEED. What it has taken, or may be held to have taken, it prints first.
"""

import os
import random
import sys

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from quart import Response, request
from quart_trio import QuartTrio

app = QuartTrio("flapping")
dice = random.Random()
steady = False


def note(body: bytes) -> None:
    os.write(
        1, b"took " + request.args["event"].encode() + b" " + request.headers["X-Triolet-Event-Id"].encode() + b" "
    )
    os.write(1, body.replace(b"\n", b"") + b"\n")


@app.post("/webhook")
async def webhook() -> Response | tuple[str, int]:
    body = await request.get_data()
    throw = 1.0 if steady else dice.random()
    if throw < 0.03:
        return "", 503
    if throw < 0.05:
        return Response(status=302, headers={"Location": "/elsewhere"})
    if throw < 0.06:
        os._exit(1)
    if throw < 0.08:
        await trio.sleep(0.1)
    note(body)
    if throw < 0.10:
        os._exit(1)
    if throw < 0.12:
        return "taken, but who knows", 500
    return "<html>\x00 not what you expect", 200


async def main(port: str, seed: str) -> None:
    dice.seed(int(seed))
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.errorlog = config.accesslog = None
    await serve(app, config)


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
