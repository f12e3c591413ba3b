"""Every endpoint, a module per group of the HTTP reference."""

from triolet_api.routes import _channel, _conversation, _message, _system, _user

ROUTES = (*_system.ROUTES, *_user.ROUTES, *_channel.ROUTES, *_message.ROUTES, *_conversation.ROUTES)
