"""The plugin at work: answers core's questions about channels and users from a data source."""

from contextlib import suppress
from typing import Any

import trio

from triolet_core import BackendError, ChannelKey
from triolet_core.hooks import Subscription
from triolet_core.plugin import PluginContext
from triolet_datasource._client import open_client
from triolet_datasource._config import DatasourceConfig
from triolet_datasource._questions import SYSTEM_UIDS
from triolet_datasource._responders import answer_core
from triolet_datasource._source import NAME, Source

_FIRST_RETRY_S = 1.0
_LONGEST_RETRY_S = 30.0
"""Bounds of the wait before system accounts that could not be had are asked for again."""


async def run(context: PluginContext[Any], task_status: trio.TaskStatus[None]) -> None:
    """Answer until the host asks for an end; requests that are under way then are given up.

    Ready when the system accounts have been asked for, whatever came of it.
    """
    async with open_client(context.config) as client, trio.open_nursery() as nursery:
        source = Source(client, context.config, context.broker, context.log, nursery)
        context.broker.metrics.add_source(NAME, source.statistics)
        with answer_core(context, source), context.hooks.channel_changed.subscribe() as changes:
            context.broker.channels.forget_all()  # what was concluded without a data source
            context.broker.services[NAME] = source
            try:
                await _serve(context, source, changes, nursery)
                task_status.started()
                await context.stopping.wait()
            finally:
                del context.broker.services[NAME]
        nursery.cancel_scope.cancel()


async def _serve(
    context: PluginContext[DatasourceConfig],
    source: Source,
    changes: Subscription[ChannelKey],
    service_nursery: trio.Nursery,
) -> None:
    """Start what keeps answers right; returns when the system accounts have been asked for."""
    service_nursery.start_soon(source.forget_what_is_too_old)
    service_nursery.start_soon(_heed_changes, source, changes)
    tried = trio.Event()
    service_nursery.start_soon(_keep_system_uids, context, source, tried)
    with trio.move_on_after(context.broker.config.plugins.start_timeout / 2):
        await tried.wait()


async def _keep_system_uids(context: PluginContext[DatasourceConfig], source: Source, tried: trio.Event) -> None:
    """Let core load the system accounts, again and again; sooner while they cannot be had."""
    retry_s = _FIRST_RETRY_S
    while True:
        source.system_uids_wanted = trio.Event()
        with suppress(BackendError):  # has been logged, and core refuses senders by it
            await context.broker.channels.load_system_uids()
        tried.set()
        if source.is_fresh(SYSTEM_UIDS):
            wait_s, retry_s = float(context.config.cache_ttl), _FIRST_RETRY_S
        else:
            wait_s, retry_s = retry_s, min(retry_s * 2, _LONGEST_RETRY_S)
        with trio.move_on_after(wait_s):
            await source.system_uids_wanted.wait()


async def _heed_changes(source: Source, changes: Subscription[ChannelKey]) -> None:
    """Ask anew about a channel that the API has changed."""
    missed = 0
    async for key in changes.receive:
        if changes.dropped > missed:
            missed = changes.dropped
            source.invalidate(None, None)
        else:
            source.invalidate(key.id, key.type)
