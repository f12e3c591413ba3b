"""Processes that do the sockets of the gateway: layers, framing, encryption. The sessions stay in the core process.

Theory of operation. With `gateway.workers` the core process accepts as ever and decides who may connect; then it hands
the socket to the worker with the fewest. A worker turns bytes into batches of packets (`_front`) and reports them over
a link (`_link`, `_reports`); in the core process a `RemoteSession` (`_remote`) takes them where a socket would have
handed it bytes. What that session sends is not bytes but orders (`_orders`), which the worker carries out with the
connection that has the keys; a message for many is one order for each worker. Everything of one connection goes over
one link in both directions, and so keeps its order.

What both ends promise:

- A session that waits (a login, facts that must be read, too much in flight) has its socket left alone: the core
  orders a pause with the batch after which it has to wait, and keeps what was under way.
- What a client does not read waits in its worker, bounded as ever; what a worker does not read waits in the core up
  to `gateway.workerBytes`, beyond which the connections that it was meant for end as slow consumers. What the core
  does not read makes the worker leave its sockets alone.
- A PING is answered by the worker if the core has seen everything that came before, else by the core: its PONG says
  in any case that everything before has been handled.
- A worker that ends takes its connections with it and is started again. A core that ends closes the links, and every
  worker ends.
"""

from triolet_gateway.workers._orders import KINDS as KINDS
from triolet_gateway.workers._pool import Pool as Pool
