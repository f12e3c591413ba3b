"""What the backend of a chat app asks of its IM server: python backend.py [URL] [MANAGER_TOKEN].

It registers users, makes a group, sends, reads history and unread counts, mutes a member and recalls a message.
README.md goes through it. It needs httpx and nothing else.
"""

import base64
import json
import sys
from typing import Any

import httpx

PERSON, GROUP = 1, 2
TEAM = {"channel_id": "team", "channel_type": GROUP}
MEMBERS = {"ann": "token-of-ann", "bob": "token-of-bob", "cid": "token-of-cid"}


class Refused(Exception):
    """The server does not do what it was asked for; the text says why."""


class Server:
    """The calls that this backend makes."""

    def __init__(self, url: str, token: str = "") -> None:
        self._http = httpx.Client(base_url=url, headers={"token": token} if token else {}, timeout=10)

    def ask(self, method: str, path: str, **more: Any) -> Any:
        """Return the JSON of an answer; a refusal is an HTTP status, or another `status` than 200 in the body."""
        answer = self._http.request(method, path, **more)
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            raise Refused("the manager token is missing or wrong")
        body = answer.json()
        status = body.get("status", 200) if isinstance(body, dict) else 200
        if answer.is_error or status != 200:
            raise Refused(f"{path}: {body.get('msg') or f'reason {status}'}")
        return body

    def post(self, path: str, **body: Any) -> Any:
        """Make a POST call."""
        return self.ask("POST", path, json=body)

    def register(self, uid: str, token: str) -> None:
        """Let a user's app connect with a token."""
        self.post("/user/token", uid=uid, token=token, device_flag=0, device_level=1)

    def make_group(self, name: str, members: list[str]) -> None:
        """Make the group, or bring it to these members."""
        self.post("/channel", **TEAM, name=name, reset=1, subscribers=members)

    def send(self, from_uid: str, text: str, number: str) -> int:
        """Send a text to the group and return its id. The number makes a repeat harmless."""
        header = {"red_dot": 1}
        sent = self.post(
            "/message/send", **TEAM, from_uid=from_uid, header=header, client_msg_no=number, payload=encoded(text)
        )
        return int(sent["message_idstr"])

    def history(self, uid: str, limit: int = 10) -> list[str]:
        """Return the newest messages of the group as a member reads them."""
        page = self.post("/channel/messagesync", **TEAM, login_uid=uid, limit=limit)
        return [shown(message) for message in page["messages"]]

    def unread(self, uid: str) -> int:
        """Return how many messages of the group a member has not read."""
        rows = self.post("/conversation/sync", uid=uid, msg_count=0)
        return sum(row["unread"] for row in rows if row["channel_id"] == TEAM["channel_id"])

    def mark_read(self, uid: str) -> None:
        """Say that a member has read everything."""
        self.post("/conversations/clearUnread", **TEAM, uid=uid)

    def mute(self, uid: str) -> list[str]:
        """Keep a member from sending to the group, and return who is kept from it."""
        self.post("/channel/blacklist_add", **TEAM, uids=[uid])
        muted: list[str] = self.ask("GET", "/channel/blacklist", params={**TEAM, "format": "uids"})
        return muted

    def recall(self, uid: str, message_id: int) -> None:
        """Take a message back; devices that are online are told, others find it gone."""
        self.post("/message/recall", **TEAM, message_id=message_id, from_uid=uid)


def encoded(text: str) -> str:
    """Return a text as a payload: JSON that the apps understand, as base64. The server does not look into it."""
    return base64.b64encode(json.dumps({"type": 1, "content": text}).encode()).decode()


def shown(message: dict[str, Any]) -> str:
    """Return a message as a line."""
    if message.get("is_deleted"):
        return f"{message['message_seq']}. {message['from_uid']} took a message back"
    content = json.loads(base64.b64decode(message["payload"]))["content"]
    return f"{message['message_seq']}. {message['from_uid']}: {content}"


def main(url: str = "http://127.0.0.1:5001", token: str = "") -> None:
    """Go through it all once."""
    server = Server(url, token)
    for uid, user_token in MEMBERS.items():
        server.register(uid, user_token)
    print(f"registered: {', '.join(MEMBERS)}")

    server.make_group("The team", list(MEMBERS))
    print("made the group: The team")

    server.send("ann", "shall we meet at ten?", "first-of-ann")
    wrong = server.send("cid", "at midnight!", "first-of-cid")
    print("sent: 2 messages")

    print(f"unread of bob: {server.unread('bob')}")
    for line in server.history("bob"):
        print(f"bob reads: {line}")
    server.mark_read("bob")
    print(f"unread of bob: {server.unread('bob')}")

    print(f"muted: {', '.join(server.mute('cid'))}")
    server.recall("cid", wrong)
    for line in server.history("bob"):
        print(f"bob reads: {line}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:3])
    except Refused as exc:
        sys.exit(f"refused: {exc}")
    except httpx.TransportError as exc:
        sys.exit(f"no answer: {exc}; is the server running?")
