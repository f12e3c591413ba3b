"""The gRPC form, against a real server of grpcio. Source: semantics.md, 5.1; conformance 75."""

import base64
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
import trio

from tests.integration.test_webhook import ANN, online, serving
from tests.webhook_receiver import open_receiver
from triolet_core.testing import draft
from triolet_webhook._proto import wkhook_pb2, wkhook_pb2_grpc


class Service(wkhook_pb2_grpc.WebhookServiceServicer):
    """Keeps calls and answers with what is in `answers`, then Success."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any, dict[str, Any]]] = []
        self.answers: list[Any] = []
        self.lock = threading.Lock()
        self.grown = threading.Semaphore(0)

    def SendWebhook(self, request: Any, context: Any) -> Any:  # noqa: N802  # the service's name
        with self.lock:
            answer = self.answers.pop(0) if self.answers else wkhook_pb2.Success
            self.calls.append((request.event, json.loads(request.data), dict(context.invocation_metadata())))
        self.grown.release()
        if isinstance(answer, grpc.StatusCode):
            context.abort(answer, "told to")
        return wkhook_pb2.EventResp(status=answer)

    async def wait_for(self, count: int) -> list[tuple[str, Any, dict[str, Any]]]:
        for _ in range(count):
            await trio.to_thread.run_sync(self.grown.acquire, abandon_on_cancel=True)
        return self.calls


@pytest.fixture
def service() -> Iterator[tuple[Service, str]]:
    server = grpc.server(ThreadPoolExecutor(4))
    service = Service()
    wkhook_pb2_grpc.add_WebhookServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield service, f"127.0.0.1:{port}"
    server.stop(0).wait()


async def test_grpc_wins_over_http_and_the_start_says_so(tmp_path: Path, service: tuple[Service, str]) -> None:
    called, address = service
    with structlog.testing.capture_logs() as logs:
        async with open_receiver() as unused, serving(tmp_path, http_addr=unused.url, grpc_addr=address) as server:
            online(server, ANN)
            await server.broker.messages.send(ANN, draft("bob", b"hi"))
            calls = await called.wait_for(3)
            assert unused.pushes == []
    assert sorted(event for event, _, _ in calls) == ["msg.notify", "msg.offline", "user.onlinestatus"]
    by_event = {event: data for event, data, _ in calls}
    assert base64.b64decode(by_event["msg.notify"][0]["payload"]) == b"hi"
    assert by_event["msg.offline"]["to_uids"] == ["bob"]
    [start] = [log for log in logs if log["event"] == "webhook starts"]
    assert (start["form"], start["address"]) == ("grpc", address)
    assert "gRPC wins" in start["note"]


async def test_what_is_not_answered_with_success_is_repeated(tmp_path: Path, service: tuple[Service, str]) -> None:
    called, address = service
    called.answers = [wkhook_pb2.Error, grpc.StatusCode.INTERNAL, wkhook_pb2.Success]
    async with serving(tmp_path, grpc_addr=address, focus_events=("msg.notify",), secret="s3cret") as server:
        await server.broker.messages.send(ANN, draft("bob"))
        calls = await called.wait_for(3)
    assert [metadata["x-triolet-attempt"] for _, _, metadata in calls] == ["1", "2", "3"]
    assert len({metadata["x-triolet-event-id"] for _, _, metadata in calls}) == 1
    assert all(metadata["x-triolet-signature"].startswith("sha256=") for _, _, metadata in calls)


async def test_a_receiver_that_starts_later_gets_what_waited(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    service = Service()
    grpc_server = grpc.server(ThreadPoolExecutor(2))
    wkhook_pb2_grpc.add_WebhookServiceServicer_to_server(service, grpc_server)
    async with serving(
        tmp_path, grpc_addr=f"127.0.0.1:{port}", focus_events=("msg.notify",), msg_notify_event_retry_max_count=0
    ) as server:
        await server.broker.messages.send(ANN, draft("bob"))
        while not server.broker.metrics.values()["webhook_notify_failed_attempts_total"]:
            await trio.lowlevel.checkpoint()
        grpc_server.add_insecure_port(f"127.0.0.1:{port}")
        grpc_server.start()
        try:
            assert len(await service.wait_for(1)) == 1
        finally:
            await trio.to_thread.run_sync(grpc_server.stop(0).wait)


def test_the_messages_have_the_references_names_and_numbers() -> None:
    """Source: semantics.md, 5.1."""
    file = wkhook_pb2.DESCRIPTOR
    assert file.package == "wkhook"
    method = file.services_by_name["WebhookService"].methods_by_name["SendWebhook"]
    assert (method.input_type.name, method.output_type.name) == ("EventReq", "EventResp")
    numbers = {name: {f.name: f.number for f in m.fields} for name, m in file.message_types_by_name.items()}
    assert numbers == {"EventReq": {"event": 1, "data": 2}, "EventResp": {"status": 1, "data": 2}}
    assert dict(wkhook_pb2.EventStatus.items()) == {"Error": 0, "Success": 1}
    assert wkhook_pb2.EventReq(event="e", data=b"d").SerializeToString() == b"\x0a\x01e\x12\x01d"
