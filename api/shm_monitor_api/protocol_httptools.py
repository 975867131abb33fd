"""The same over httptools, a parser in C without a limit of its own for the size of a head."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from shm_monitor_api.protocol import HEAD_BYTES_MAX, Limits


class HeadTooLargeError(Exception):
    """The head of a request is larger than any that we need; the connection is answered and closed."""

    error_status_hint = 431


class LimitedHttpToolsProtocol(Limits, HttpToolsProtocol):  # type: ignore[misc]
    """Counts the bytes of each head, as h11 does by itself."""

    _head_bytes = 0
    _in_head = False
    _too_large = False

    def data_received(self, data: bytes) -> None:
        """Handle what came; refuse a head that has become too large, whole or not."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)  # counts a little of the request before, where they came together
            if self._head_bytes > HEAD_BYTES_MAX and not self.transport.is_closing():
                self._refuse()

    def on_message_begin(self) -> None:
        """Begin a head."""
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Begin the request, unless its head came whole and is too large all the same.

        Raises:
            HeadTooLargeError: the parser stops at it.
        """
        self._in_head = False
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > HEAD_BYTES_MAX:
            self._too_large = True
            raise HeadTooLargeError
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what the parser refused; it hides our own error behind one of its own."""
        if self._too_large:
            self._refuse()
        else:
            super().send_400_response(msg)

    def _refuse(self) -> None:
        try:
            raise HeadTooLargeError
        except HeadTooLargeError:
            super().send_400_response("")
