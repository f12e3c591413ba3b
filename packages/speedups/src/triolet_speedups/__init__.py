"""What runs per message, compiled; found by `triolet_core.speedups` if this package is installed."""

from triolet_speedups._native import INTERFACE as INTERFACE
from triolet_speedups._native import Peer as Peer
from triolet_speedups._native import SortedRows as SortedRows
from triolet_speedups._native import aes_keys as aes_keys
from triolet_speedups._native import match_recvacks as match_recvacks
from triolet_speedups._native import message_rows as message_rows
from triolet_speedups._native import page_text as page_text
from triolet_speedups._native import read_batch as read_batch
from triolet_speedups._native import read_messages as read_messages
from triolet_speedups._native import read_sockets as read_sockets
from triolet_speedups._native import receive_requests as receive_requests
from triolet_speedups._native import run_text as run_text
from triolet_speedups._native import send_recvs as send_recvs
from triolet_speedups._native import write_messages as write_messages
from triolet_speedups._native import write_recvs as write_recvs
from triolet_speedups._native import write_sendacks as write_sendacks
from triolet_speedups._native import write_sockets as write_sockets
from triolet_speedups._native import write_synced as write_synced
