"""The functions of `triolet_gateway.protocol._hot`, compiled. The gateway uses them if this package is installed."""

from triolet_speedups._native import INTERFACE as INTERFACE
from triolet_speedups._native import Peer as Peer
from triolet_speedups._native import read_batch as read_batch
from triolet_speedups._native import write_recvs as write_recvs
from triolet_speedups._native import write_sendacks as write_sendacks
