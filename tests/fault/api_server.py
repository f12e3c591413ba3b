"""Child of test_api_kill: serves the API on loopback, prints its address. Ends by being killed."""

import os
import sys
from pathlib import Path

import trio

import triolet_api
from tests.integration.api.support import config_of
from triolet_core import open_server


async def main(directory: str) -> None:
    async with open_server(config_of(Path(directory)), plugins=[triolet_api.plugin]) as server:
        os.write(1, f"{server.broker.endpoints['http']}\n".encode())
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
