"""The client protocol of WuKongIM and LiMaoIM, sans IO: bytes in, events out, for both roles.

Source: wire-protocol.md; the vectors of the reference codec are among the tests.
"""

from triolet_protocol._codec import decode as decode
from triolet_protocol._codec import encode as encode
from triolet_protocol._connection import Connection as Connection
from triolet_protocol._connection import encode_recvs as encode_recvs
from triolet_protocol._connection import is_compiled as is_compiled
from triolet_protocol._errors import LocalProtocolError as LocalProtocolError
from triolet_protocol._errors import PayloadError as PayloadError
from triolet_protocol._errors import ProtocolError as ProtocolError
from triolet_protocol._errors import RemoteProtocolError as RemoteProtocolError
from triolet_protocol._errors import RequestError as RequestError
from triolet_protocol._events import AnswerReady as AnswerReady
from triolet_protocol._events import Batch as Batch
from triolet_protocol._events import ClosedByPeer as ClosedByPeer
from triolet_protocol._events import ConnAckReceived as ConnAckReceived
from triolet_protocol._events import ConnectReceived as ConnectReceived
from triolet_protocol._events import DisconnectReceived as DisconnectReceived
from triolet_protocol._events import Event as Event
from triolet_protocol._events import EventReceived as EventReceived
from triolet_protocol._events import PingReceived as PingReceived
from triolet_protocol._events import PongReceived as PongReceived
from triolet_protocol._events import RecvAckReceived as RecvAckReceived
from triolet_protocol._events import RecvReceived as RecvReceived
from triolet_protocol._events import SendAckReceived as SendAckReceived
from triolet_protocol._events import SendReceived as SendReceived
from triolet_protocol._events import SubAckReceived as SubAckReceived
from triolet_protocol._events import SubReceived as SubReceived
from triolet_protocol._frames import ConnAck as ConnAck
from triolet_protocol._frames import Connect as Connect
from triolet_protocol._frames import Disconnect as Disconnect
from triolet_protocol._frames import EventFrame as EventFrame
from triolet_protocol._frames import Family as Family
from triolet_protocol._frames import Frame as Frame
from triolet_protocol._frames import Ping as Ping
from triolet_protocol._frames import Pong as Pong
from triolet_protocol._frames import Recv as Recv
from triolet_protocol._frames import RecvAck as RecvAck
from triolet_protocol._frames import Send as Send
from triolet_protocol._frames import SendAck as SendAck
from triolet_protocol._frames import StreamLayout as StreamLayout
from triolet_protocol._frames import Sub as Sub
from triolet_protocol._frames import SubAck as SubAck
from triolet_protocol._hot import Mark as Mark
from triolet_protocol._hot import RecvFields as RecvFields
from triolet_protocol._hot import SendFields as SendFields
from triolet_protocol._hot import recv_fields as recv_fields
from triolet_protocol._jsonrpc import JsonConnection as JsonConnection
from triolet_protocol._jsontext import begins_json as begins_json
from triolet_protocol._proxy import begins_header as begins_header
from triolet_protocol._proxy import read_header as read_header
from triolet_protocol._state import Limits as Limits
from triolet_protocol._state import Role as Role
from triolet_protocol._state import State as State
