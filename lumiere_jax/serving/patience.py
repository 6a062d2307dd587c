"""Closes connections whose request does not arrive in time, so that they hold no open files."""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

_SECONDS = 30.0
_BYTES_PER_SECOND = 10_000  # more time for large requests: 32 MiB may take an hour
_LOOK_SECONDS = 5.0


class PatientProtocol(H11Protocol):
    """HTTP/1.1 of uvicorn, which alone would wait forever for the rest of a request.

    Answers may take any time, and uvicorn closes idle connections itself.
    """

    _timer: asyncio.TimerHandle | None = None
    _since = 0.0  # when it began to wait for the request
    _received = 0  # bytes since then
    _request: Any = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        """Begins to wait."""
        super().connection_made(transport)
        self._restart()
        self._timer = self.loop.call_later(_LOOK_SECONDS, self._look)

    def data_received(self, data: bytes) -> None:
        """Counts the bytes; a new or a complete request resets the clock."""
        self._received += len(data)
        super().data_received(data)
        if self.cycle is not self._request or not self._awaits():
            self._restart()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops waiting."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def _awaits(self) -> bool:
        return self.conn.their_state in (h11.IDLE, h11.SEND_BODY)

    def _restart(self) -> None:
        self._since, self._received, self._request = self.loop.time(), 0, self.cycle

    def _look(self) -> None:
        if self.transport.is_closing():
            return
        waited = self.loop.time() - self._since
        if not self._awaits():
            self._restart()
        elif self.flow.read_paused:  # the server itself is not reading
            self._since += _LOOK_SECONDS
        elif waited > _SECONDS + self._received / _BYTES_PER_SECOND:
            self.transport.close()
            return
        self._timer = self.loop.call_later(_LOOK_SECONDS, self._look)
