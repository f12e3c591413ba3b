"""The endpoints, a module for each part of the API."""

from triolet_api._call import Route
from triolet_api.routes import (
    _backend,
    _channel,
    _cluster_channels,
    _cluster_data,
    _cluster_nodes,
    _connection,
    _conversation,
    _docs,
    _event,
    _ext,
    _history,
    _lifecycle,
    _lists,
    _manager,
    _monitor,
    _plugin,
    _presence,
    _route,
    _send,
    _stream,
    _user,
    _web,
)

ROUTES: tuple[Route, ...] = tuple(
    route
    for module in (
        _user,
        _route,
        _connection,
        _channel,
        _lists,
        _send,
        _history,
        _event,
        _stream,
        _lifecycle,
        _conversation,
        _monitor,
        _manager,
        _plugin,
        _backend,
        _cluster_nodes,
        _cluster_channels,
        _cluster_data,
        _docs,
        _ext,
        _presence,
        _web,
    )
    for route in module.ROUTES
)
"""Every endpoint."""
