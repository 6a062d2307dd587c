"""Closes connections that do not get on, so that they hold no open files and no memory.

No server does it alone: uvicorn ends idle connections only, the time of hypercorn begins anew with
each byte that it reads, that of granian ends with the headers, and none has one for answers.
"""

import asyncio
import dataclasses
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

_SECONDS = 30.0
_BYTES_PER_SECOND = 10_000  # more time for more bytes: 32 MiB may take an hour
_LOOK_SECONDS = 5.0


@dataclasses.dataclass
class _Wait:
    """For the client: since when, and how many bytes went through meanwhile."""

    since: float
    size: int = 0

    def is_over(self, now: float) -> bool:
        return now - self.since > _SECONDS + self.size / _BYTES_PER_SECOND


class PatientProtocol(H11Protocol):
    """HTTP/1.1 of uvicorn, with an end to each wait for the client.

    Making an answer may take any time, and uvicorn closes idle connections itself.
    """

    _timer: asyncio.TimerHandle | None = None
    _request: Any = None
    _sending: _Wait | None = None  # while an answer is not read
    _taken = 0  # bytes before that

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        """Begins to wait."""
        self._counted = _Counted(transport)
        super().connection_made(self._counted)  # type: ignore[arg-type]  # stands for a transport
        self._restart()
        self._timer = self.loop.call_later(_LOOK_SECONDS, self._look)

    def data_received(self, data: bytes) -> None:
        """Counts the bytes; a new or a complete request resets the clock."""
        self._receiving.size += len(data)
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
        self._receiving, self._request = _Wait(self.loop.time()), self.cycle

    def _look(self) -> None:
        if self._is_unread() or self._is_late():
            self.transport.abort()  # to close it would wait until the client has read all
            return
        self._timer = self.loop.call_later(_LOOK_SECONDS, self._look)

    def _is_late(self) -> bool:
        """Whether the client takes too long to send its request, and has read the last answer."""
        if not self._awaits() or self.transport.get_write_buffer_size():
            self._restart()
        elif self.flow.read_paused:  # the server itself is not reading
            self._receiving.since += _LOOK_SECONDS
        return self._receiving.is_over(self.loop.time())

    def _is_unread(self) -> bool:
        """Whether the client takes too long to read the answer."""
        left = self.transport.get_write_buffer_size()
        taken = self._counted.written - left
        if not left or self._sending is None:  # what the system's buffers took does not count
            self._sending, self._taken = _Wait(self.loop.time()) if left else None, taken
            return False
        self._sending.size = taken - self._taken
        return self._sending.is_over(self.loop.time())


class _Counted:
    """A transport that knows how many bytes were written to it."""

    def __init__(self, transport: asyncio.Transport):
        self._transport, self.written = transport, 0

    def write(self, data: bytes) -> None:
        self.written += len(data)
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
