"""The client protocol, which is a package of its own, under the name that it had here."""

from triolet_protocol import *  # noqa: F403  # whatever is public there
