"""`POST /message/send` with `stream_no`: a piece of a stream, as WuKongIM 1.2.6 has it (http-api.md, 6.1 and 6.11)."""

from pathlib import Path
from typing import Any

import pytest

from tests.integration.api.support import GROUP, OK, api_in


@pytest.mark.parametrize(
    ("changed", "status", "text"),
    [
        ({}, 400, "流已关闭！"),
        ({"stream_no": "open", "channel_id": "other"}, 400, "流的频道不匹配！"),
        ({"stream_no": "open", "channel_id": "o@ther"}, 400, "频道ID不合法！"),
        ({"stream_no": "open", "channel_id": ""}, 400, "无法处理发送消息请求！"),
        ({"stream_no": "open", "channel_type": 0}, 400, "频道类型错误！"),
    ],
)
async def test_a_piece_that_fits_no_open_stream_is_refused(
    tmp_path: Path, changed: dict[str, Any], status: int, text: str
) -> None:
    async with api_in(tmp_path) as api:
        for number in ("closed", "open"):
            begun = await api.post("/streammessage/start", {**GROUP, "content": "a", "client_msg_no": number})
            assert begun == {"stream_no": number}
        assert await api.post("/streammessage/end", {**GROUP, "stream_no": "closed"}) == OK
        piece = {**GROUP, "stream_no": "closed", "content": "b"}
        assert await api.post("/message/send", {**piece, **changed}) == (status, text)
        assert (await api.post("/message/send", {**piece, "stream_no": "open"}))["message_seq"] == 0
