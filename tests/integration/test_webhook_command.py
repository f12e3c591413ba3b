"""`triolet webhook …` on the store of a stopped server."""

import json
from pathlib import Path

import pytest
import trio

from tests.integration.test_webhook import ANN, accept_all, payloads, serving
from tests.webhook_receiver import Push, TestReceiver, open_receiver
from triolet_core._cli import main
from triolet_core.testing import draft


async def bury_one(path: Path, receiver: TestReceiver) -> None:
    async def refuse(push: Push) -> tuple[str, int]:
        return "", 500

    receiver.answer = refuse
    async with serving(
        path, http_addr=receiver.url, focus_events=("msg.notify",), msg_notify_event_retry_max_count=1
    ) as server:
        await server.broker.messages.send(ANN, draft("bob", b"lost"))
        await receiver.wait_for("msg.notify")
        while not await server.broker.services["webhook"].dead():
            await trio.lowlevel.checkpoint()


async def triolet(path: Path, *words: str) -> int:
    arguments = ["webhook", *words, "-e", f"dataDir={path}"]
    return await trio.to_thread.run_sync(main, arguments)


async def test_dead_letters_are_listed_sent_again_and_gone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with open_receiver() as receiver:
        await bury_one(tmp_path, receiver)
        capsys.readouterr()
        address = ("-e", f"webhook.httpAddr={receiver.url}")
        assert await triolet(tmp_path, "dead") == 0
        letter = json.loads(capsys.readouterr().out)
        assert (letter["event"], letter["reason"]) == ("msg.notify", "status 500")
        number = str(letter["id"])
        assert await triolet(tmp_path, "resend", number, *address) == 1
        assert json.loads(capsys.readouterr().out) == {"resent": [], "failed": letter["id"], "reason": "status 500"}
        assert await triolet(tmp_path, "resend", number) == 1
        assert "no address is set" in json.loads(capsys.readouterr().out)["reason"]
        receiver.answer = accept_all
        assert await triolet(tmp_path, "resend", number, *address) == 0
        assert json.loads(capsys.readouterr().out) == {"resent": [letter["id"]]}
        assert payloads(receiver.pushes[-1]) == [b"lost"]
        assert await triolet(tmp_path, "dead") == 0
        assert capsys.readouterr().out == ""


async def test_dead_letters_are_dropped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with open_receiver() as receiver:
        await bury_one(tmp_path, receiver)
    capsys.readouterr()
    assert await triolet(tmp_path, "drop", "1", "2") == 0
    assert json.loads(capsys.readouterr().out) == {"dropped": [1]}


async def test_a_store_that_is_not_there_or_in_use_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await triolet(tmp_path / "nothing", "dead") == 3
    assert "there is no store" in capsys.readouterr().err
    async with serving(tmp_path):
        assert await triolet(tmp_path, "dead") == 3
    assert "another process holds the store" in capsys.readouterr().err


def test_an_unknown_command_is_not_taken_for_a_plugins(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["gateway", "dance"])
    assert ended.value.code == 2
    assert "invalid choice: 'gateway'" in capsys.readouterr().err
