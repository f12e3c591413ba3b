"""`triolet chat`: a client for the terminal, on asyncio. The extra `chat` brings the library for its screen."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from functools import partial

import anyio
import attrs

from triolet_client._errors import ClientError
from triolet_client._model import Channel, DeviceFlag, Login

STOPPED, FAILED, BAD_USE = 0, 1, 2
_TOKEN = "TRIOLET_TOKEN"  # noqa: S105  # a variable's name


@attrs.frozen(kw_only=True)
class ChatOptions:
    """What the command line says."""

    login: Login
    server: str
    api: str | None
    api_token: str
    room: Channel | None


def main(argv: Sequence[str] | None = None) -> int:
    """Chat until the user leaves; returns the exit code: 0 left, 1 no connection, 2 wrong use."""
    options = _options(argv)
    try:
        from triolet_client.chat._talk import chat
    except ImportError as exc:
        if exc.name is None or not exc.name.startswith("prompt_toolkit"):
            raise
        return _complain("the screen is missing: pip install 'triolet-client[chat]'", BAD_USE)
    before = logging.root.manager.disable
    logging.disable()  # the screen is no place for a log; it shows the state of the connection itself
    try:
        anyio.run(partial(chat, options), backend="asyncio")
    except ClientError as exc:
        return _complain(str(exc), FAILED)
    except ValueError as exc:
        return _complain(str(exc), BAD_USE)
    except KeyboardInterrupt:
        return STOPPED
    finally:
        logging.disable(before)
    return STOPPED


def _complain(text: str, code: int) -> int:
    sys.stderr.write(f"triolet chat: {text}\n")
    return code


def _options(argv: Sequence[str] | None) -> ChatOptions:
    parser = argparse.ArgumentParser(
        prog="triolet chat", description="Chat in the terminal.", epilog="Exit codes: 0 left, 1 no connection, 2 use."
    )
    parser.add_argument("uid", help="who you are")
    parser.add_argument("--token", default=os.environ.get(_TOKEN, ""), help=f"your token (or variable {_TOKEN})")
    parser.add_argument("--server", default="127.0.0.1:5100", help="host:port, tls://, ws:// or wss:// (%(default)s)")
    parser.add_argument("--api", default="http://127.0.0.1:5001", help="the HTTP API; '' goes without (%(default)s)")
    parser.add_argument("--api-token", default="", help="the manager's token, if the API asks for it")
    parser.add_argument("--device", choices=("app", "web", "pc"), default="pc", help="kind of device (%(default)s)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--to", metavar="UID", help="begin with this user")
    where.add_argument("--group", metavar="ID", help="begin with this group")
    found = parser.parse_args(argv)
    flag = DeviceFlag[found.device.upper()]
    room = Channel.group(found.group) if found.group else Channel.person(found.to) if found.to else None
    return ChatOptions(
        login=Login(uid=found.uid, token=found.token, device_id="triolet-chat", device_flag=flag),
        server=found.server,
        api=found.api or None,
        api_token=found.api_token,
        room=room,
    )
