"""TLS on a raw non-blocking socket: the library's memory BIOs, so that a connection needs no second task."""

import contextlib
import signal
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import trio

import triolet_protocol as wire
from triolet_core import ConfigError

_CHUNK = 65536
_CERTIFICATES = "wssConfig.certFile, wssConfig.keyFile"


class Certificates:
    """The certificate in use. A new one is for new connections; those that are open keep theirs."""

    def __init__(self, cert_file: str, key_file: str) -> None:
        """Load the files.

        Raises:
            ConfigError: They cannot be used.
        """
        if not (cert_file and key_file):
            raise ConfigError(_CERTIFICATES, "TLS needs a certificate and its key")
        self._cert_file = Path(cert_file)
        self._key_file = Path(key_file)
        self.context = self._load()

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        try:
            context.load_cert_chain(self._cert_file, self._key_file)
        except (OSError, ssl.SSLError) as exc:
            raise ConfigError(_CERTIFICATES, f"cannot be used: {exc}") from exc
        return context

    async def reload(self) -> None:
        """Read the files again, in a thread.

        Raises:
            ConfigError: They cannot be used; the certificate stays as it was.
        """
        self.context = await trio.to_thread.run_sync(self._load)

    async def reload_on_signal(self, log: Any, *also: Callable[[], None]) -> None:
        """Reload with each SIGHUP, and call `also` when that went well.

        Outside of the main thread no signal can be received: returns at once.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        with trio.open_signal_receiver(signal.SIGHUP) as signals:
            async for _ in signals:
                try:
                    await self.reload()
                except ConfigError as exc:
                    log.error("certificate kept", problem=str(exc))
                else:
                    log.info("certificate reloaded")
                    for each in also:
                        each()


class Tls:
    """The layer of TLS, above the socket."""

    shows_parts = False
    """A record can be read when it is complete."""
    __slots__ = ("_incoming", "_is_open", "_outgoing", "_send", "_tls")

    def __init__(self, context: ssl.SSLContext, send: Callable[[bytes], bool]) -> None:
        self._send = send
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._is_open = False

    def receive(self, data: bytes) -> Iterator[bytes]:
        """Yield what bytes of the socket say; b"" is the peer's good-bye.

        Raises:
            RemoteProtocolError: The peer does not speak TLS, or not as it should; an alert is on its way.
        """
        self._incoming.write(data)
        try:
            if not self._is_open:
                self._tls.do_handshake()
                self._is_open = True
            while True:
                chunk = self._tls.read(_CHUNK)
                yield chunk
                if not chunk:
                    return
        except ssl.SSLWantReadError:
            return
        except ssl.SSLZeroReturnError:
            yield b""
        except ssl.SSLError as exc:
            self._is_open = False
            raise wire.RemoteProtocolError(wire.ReasonCode.UNKNOWN, f"TLS failed: {exc.reason}") from exc
        finally:
            self._flush()

    def write(self, frames: Sequence[bytes]) -> bool:
        """Encrypt frames and send them in one call."""
        if not self._is_open:
            return False
        try:
            self._tls.write(b"".join(frames))
        except ssl.SSLError:
            return False
        return self._flush()

    def use_text(self) -> None:
        """Go on: bytes are bytes here."""

    def finish(self) -> None:
        """Say good-bye."""
        if self._is_open:
            with contextlib.suppress(ssl.SSLError):  # it wants the peer's good-bye, which nobody waits for
                self._tls.unwrap()
            self._flush()
            self._is_open = False

    def _flush(self) -> bool:
        data = self._outgoing.read()
        return self._send(data) if data else True
