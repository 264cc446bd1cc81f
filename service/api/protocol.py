"""The HTTP protocol of a connection, with a limit on the size of a request without its body."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from rootstock.service.api.errors import error_response

# The limit in bytes of a request line with its headers, and of trailers; h11 has the same limit.
MAX_HEAD_BYTES = 2**16


class BoundedHeadProtocol(HttpToolsProtocol):
    """uvicorn's httptools protocol with the limit on headers that httptools lacks: above it, the answer is 431.

    The protocol counts the bytes that arrive until a body begins or a message ends. It keeps at most one read
    beyond the limit.
    """

    _head = 0
    _refused = False

    def data_received(self, data: bytes) -> None:
        """Parse the bytes that arrived; refuse the request if too many of them precede a body."""
        self._head += len(data)
        super().data_received(data)
        if self._head > MAX_HEAD_BYTES:
            self._refuse()

    def on_headers_complete(self) -> None:
        """Reset the count, because a body follows. Check the size of the headers, which one read may hold."""
        self._head = 0
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > MAX_HEAD_BYTES:
            self._refuse()
        if not self._refused:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Reset the count: the body has its own limit."""
        self._head = 0
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Reset the count, because another request follows."""
        self._head = 0
        if not self._refused:
            super().on_message_complete()

    def _refuse(self) -> None:
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        # During an unanswered request these are its trailers or a request behind it: close without an answer.
        if self.cycle is None or self.cycle.response_complete:
            answer = error_response(
                431,
                f"the request line and headers are over the limit of {MAX_HEAD_BYTES} bytes; send less",
                "headers_too_large",
                headers={"Connection": "close"},
            )
            head = [b"HTTP/1.1 431 Request Header Fields Too Large"]
            head += [name + b": " + value for name, value in answer.raw_headers]
            self.transport.write(b"\r\n".join([*head, b"", bytes(answer.body)]))
        self.transport.close()
