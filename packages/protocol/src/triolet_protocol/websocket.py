"""WebSocket framing of servers; see `_websocket`."""

from triolet_protocol._websocket import BINARY as BINARY
from triolet_protocol._websocket import CLOSE as CLOSE
from triolet_protocol._websocket import GOING_AWAY as GOING_AWAY
from triolet_protocol._websocket import NORMAL as NORMAL
from triolet_protocol._websocket import OUR_ERROR as OUR_ERROR
from triolet_protocol._websocket import PING as PING
from triolet_protocol._websocket import PONG as PONG
from triolet_protocol._websocket import TEXT as TEXT
from triolet_protocol._websocket import FrameReader as FrameReader
from triolet_protocol._websocket import encode_close as encode_close
from triolet_protocol._websocket import encode_frames as encode_frames
from triolet_protocol._websocket import encode_packets as encode_packets
