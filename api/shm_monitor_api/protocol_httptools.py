"""The same over httptools, a parser in C that would keep a head without an end for ever."""

from __future__ import annotations

from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from shm_monitor_api.guard import HEAD_BYTES_MAX
from shm_monitor_api.protocol import Limits


class LimitedHttpToolsProtocol(Limits, HttpToolsProtocol):  # type: ignore[misc]
    """Counts the bytes of a head that has not ended, as h11 does by itself."""

    _head_bytes = 0
    _in_head = False

    def data_received(self, data: bytes) -> None:
        """Handle what came; refuse a head that has become too large."""
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            self._head_bytes += len(data)  # with what ended before it in the same packet, which is no more than one
            if self._head_bytes > HEAD_BYTES_MAX:
                self.refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "")

    def on_message_begin(self) -> None:
        """Begin a head."""
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Begin the request."""
        self._in_head = False
        super().on_headers_complete()
