"""`triolet webhook dead|resend|drop`: the dead letters of a stopped server."""

import argparse
import importlib
import json
from typing import Any

import trio

from triolet_core.plugin import PluginCommand, PluginContext

DONE, FAILED = 0, 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the words of the command."""
    parser.add_argument("what", choices=("dead", "resend", "drop"), help="list, push again, or forget dead letters")
    parser.add_argument("ids", nargs="*", type=int, metavar="ID", help="which ones (resend, drop)")
    parser.add_argument("--limit", type=int, default=100, help="most letters listed (dead)")


async def run(context: PluginContext[Any], arguments: argparse.Namespace) -> int:
    """Do it; prints a JSON value per line."""
    parts = await trio.to_thread.run_sync(
        importlib.import_module, "triolet_webhook._parts", limiter=trio.CapacityLimiter(1)
    )
    async with parts.open_service(context) as service:
        match arguments.what:
            case "dead":
                for letter in await service.dead(arguments.limit):
                    _print(letter)
                return DONE
            case "resend":
                answer = await service.resend(arguments.ids)
            case _:
                answer = await service.drop(arguments.ids)
    _print(answer)
    return FAILED if "failed" in answer else DONE


def _print(value: object) -> None:
    print(json.dumps(value, ensure_ascii=False))  # noqa: T201  # the command's output


command = PluginCommand(help="the webhook's dead letters", add_arguments=add_arguments, run=run)
