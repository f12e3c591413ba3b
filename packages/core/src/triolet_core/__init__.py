"""The core of triolet: store, channels, permission, delivery, and the host that plugins run in.

Source of the behaviour: the WuKongIM and LiMaoIM servers, as the project's specification describes them.
"""

from triolet_core._broker import Broker as Broker
from triolet_core._broker import BrokerStatistics as BrokerStatistics
from triolet_core._broker import open_broker as open_broker
from triolet_core._commits import CommitLog as CommitLog
from triolet_core._queues import Append as Append
from triolet_core._queues import DurableQueues as DurableQueues
from triolet_core._queues import Edit as Edit
from triolet_core._queues import QueueSize as QueueSize
from triolet_core._queues import Remove as Remove
from triolet_core._queues import RemoveUpTo as RemoveUpTo
from triolet_core._server import Server as Server
from triolet_core._server import load_config as load_config
from triolet_core._server import open_server as open_server
from triolet_core.config import ServerConfig as ServerConfig
from triolet_core.errors import BackendError as BackendError
from triolet_core.errors import ConfigError as ConfigError
from triolet_core.errors import ConfigErrors as ConfigErrors
from triolet_core.errors import NotFound as NotFound
from triolet_core.errors import Overloaded as Overloaded
from triolet_core.errors import PluginError as PluginError
from triolet_core.errors import StoreClosed as StoreClosed
from triolet_core.errors import StoreCorrupt as StoreCorrupt
from triolet_core.errors import StoreError as StoreError
from triolet_core.errors import StoreFull as StoreFull
from triolet_core.errors import StoreLocked as StoreLocked
from triolet_core.errors import TrioletError as TrioletError
from triolet_core.model import DUP as DUP
from triolet_core.model import NO_PERSIST as NO_PERSIST
from triolet_core.model import RED_DOT as RED_DOT
from triolet_core.model import SYNC_ONCE as SYNC_ONCE
from triolet_core.model import SYSTEM_UID as SYSTEM_UID
from triolet_core.model import ChannelInfo as ChannelInfo
from triolet_core.model import ChannelKey as ChannelKey
from triolet_core.model import ChannelType as ChannelType
from triolet_core.model import ConnectRequest as ConnectRequest
from triolet_core.model import Conversation as Conversation
from triolet_core.model import Device as Device
from triolet_core.model import DeviceFlag as DeviceFlag
from triolet_core.model import DeviceLevel as DeviceLevel
from triolet_core.model import DeviceToken as DeviceToken
from triolet_core.model import Draft as Draft
from triolet_core.model import Message as Message
from triolet_core.model import MessagePage as MessagePage
from triolet_core.model import ReasonCode as ReasonCode
from triolet_core.model import Receipt as Receipt
from triolet_core.model import channel_key as channel_key
from triolet_core.model import peer_of as peer_of
