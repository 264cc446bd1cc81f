"""The HTTP protocol of a connection, with a bound on what it keeps of a request beside its body."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from rootstock.service.api.errors import error_response

# Of a request's line and headers together, of its trailers, and of what else is no body; h11 has the same bound.
MAX_HEAD_BYTES = 2**16


class BoundedHeadProtocol(HttpToolsProtocol):
    """uvicorn's protocol on httptools, which keeps headers of any size: over the bound a request is 431.

    What comes is counted until it makes a body or ends a message. One read beyond the bound is kept at most.
    """

    _head = 0
    _refused = False

    def data_received(self, data: bytes) -> None:
        """Take what came; refuse the request if too much of it is no body."""
        self._head += len(data)
        super().data_received(data)
        if self._head > MAX_HEAD_BYTES:
            self._refuse()

    def on_headers_complete(self) -> None:
        """Begin to count anew: what follows is a body. What came in few reads is measured here."""
        self._head = 0
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > MAX_HEAD_BYTES:
            self._refuse()
        if not self._refused:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Begin to count anew: the body has its own bound."""
        self._head = 0
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Begin to count anew: what follows is another request."""
        self._head = 0
        if not self._refused:
            super().on_message_complete()

    def _refuse(self) -> None:
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        # With a request under way these are its trailers, or a request behind it: its own answer comes no more.
        if self.cycle is None or self.cycle.response_complete:
            answer = error_response(
                431,
                f"the request's line and headers are over {MAX_HEAD_BYTES} bytes, which is the limit; send less",
                "headers_too_large",
                headers={"Connection": "close"},
            )
            head = [b"HTTP/1.1 431 Request Header Fields Too Large"]
            head += [name + b": " + value for name, value in answer.raw_headers]
            self.transport.write(b"\r\n".join([*head, b"", bytes(answer.body)]))
        self.transport.close()
