"""The HTTP protocol of a connection, with the limits that uvicorn lacks: on heads, on waiting, on connections."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import structlog
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from rootstock.service.api.connection.waiting_clients import most_connections, waiting_clients
from rootstock.service.api.errors import error_response
from rootstock.service.api.middleware.request_id import choose_request_id
from rootstock.service.api.middleware.security_headers import with_security_headers

# The limit in bytes of a request line with its headers, and of trailers; h11 has the same limit.
MAX_HEAD_BYTES = 2**16
# The most requests that a client may send behind one that is not yet answered.
MAX_PIPELINED = 128
# The least progress of a client that sends a body or reads an answer, in bytes for each of its times.
PROGRESS_BYTES = 2**12
# A client that is refused while it sends may go on for so many seconds and bytes, which are dropped.
_LINGER_SECONDS = 1.0
_LINGER_BYTES = 2**18
_OF_A_BODY = (b"content-length", b"transfer-encoding")


class BoundedHeadProtocol(HttpToolsProtocol):
    """uvicorn's httptools protocol with limits on what a client may keep a connection waiting with.

    A head over MAX_HEAD_BYTES gets 431, one that takes longer than `head_seconds` 408, and malformed HTTP 400.
    A body of which fewer than PROGRESS_BYTES arrive in `body_seconds` gets 408. A connection without a request
    closes after `idle_seconds`. One whose client reads less than PROGRESS_BYTES in `read_seconds` is aborted.
    If the process has as many connections as it takes, a new one replaces the one that has waited longest for
    its client; it gets 503 if none waits.

    The protocol counts the bytes that arrive until a body begins or a message ends. It keeps at most one read
    beyond the limit.
    """

    head_seconds: float = 20.0
    body_seconds: float = 30.0
    # Longer than the 60 seconds for which usual proxies keep a connection, so that the proxy closes it first.
    idle_seconds: int = 75
    read_seconds: float = 60.0

    _head = 0
    _refused = False
    # The headers of a request have been whole.
    _has_asked = False
    # The part of a request that has begun to arrive and has not ended.
    _part: Literal["head", "body"] | None = None
    _timed: Literal["head", "body"] | None = None
    _timer: asyncio.TimerHandle | None = None
    _arrived = 0
    _reader: asyncio.TimerHandle | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.timeout_keep_alive = self.idle_seconds
        self._waiting = waiting_clients(self.server_state)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection if there is room for it, or if another one can be closed for it."""
        super().connection_made(transport)
        most = most_connections()
        if len(self.connections) > most:
            self._waiting.log_full(most)
            if not self._waiting.make_room():
                self._refuse(
                    503,
                    "too_many_connections",
                    f"the server has {most} connections, the most that it takes, and all have requests; try "
                    "again soon, or raise its limit on open files",
                )
                return
        self._waiting.for_first_head(self)
        self._keep_idle()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers."""
        self._waiting.remove(self)
        self._stop_timer()
        self._stop_reader()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse the bytes that arrived; refuse the request if too many of them precede a body."""
        self._head += len(data)
        if self._refused:
            if self._head > _LINGER_BYTES:
                self.transport.close()
            return
        super().data_received(data)
        if self._head > MAX_HEAD_BYTES:
            self._refuse_head()
        if not self._refused:
            self._watch()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, in the common form of errors."""
        self._refuse(
            400,
            "invalid_http",
            "the request is not valid HTTP/1.1: its request line, a header or the length of its body is wrong; "
            "let an HTTP client send it",
        )

    def on_message_begin(self) -> None:
        """Note that a head begins."""
        self._part = "head"
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Reset the count, because a body follows. Check the size of the headers, which one read may hold."""
        self._head = 0
        self._stop_timer()
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > MAX_HEAD_BYTES:
            self._refuse_head()
        elif len(self.pipeline) >= MAX_PIPELINED:
            self.close_early()
        elif self.parser.get_http_version() not in ("1.0", "1.1"):
            self.send_400_response("")
        elif self.parser.should_upgrade() and any(name in _OF_A_BODY for name, _ in self.headers):
            # The parser skips the body of such a request, and would take it for the next request.
            self._refuse(
                400,
                "no_upgrade",
                "the request has a body and offers another protocol; send it without the header Upgrade",
            )
        if not self._refused:
            super().on_headers_complete()
            # From here on `cycle` is this request's.
            self._part = "body"
            self._has_asked = True

    def on_body(self, body: bytes) -> None:
        """Reset the count: the body has its own limit."""
        self._head = 0
        self._arrived += len(body)
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Reset the count, because another request follows."""
        self._head = 0
        self._part = None
        self._stop_timer()
        if not self._refused:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request, or on a connection that closes for the client to read the answer."""
        super().on_response_complete()
        if not self.transport.is_closing():
            self._watch()
        elif self._reader is None and self.transport.get_write_buffer_size():
            self._expect_reading()

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection, because no request came."""
        self.close_early()

    def pause_writing(self) -> None:
        """Expect that the client reads some of its answer in time."""
        super().pause_writing()
        self._expect_reading()

    def resume_writing(self) -> None:
        """Stop the timer, because the client has read."""
        self._stop_reader()
        super().resume_writing()

    def close_early(self) -> None:
        """Close the connection without an answer."""
        self._end_request()
        self.transport.close()
        if self._reader is None and self.transport.get_write_buffer_size():
            self._expect_reading()

    def _should_upgrade(self) -> bool:
        """Return false: the server takes every request as HTTP/1.1, as RFC 9110 (7.8) allows."""
        return False

    def _unsupported_upgrade_warning(self) -> None:
        """Write no line in the log: common clients offer HTTP/2 in this way."""

    def _keep_idle(self) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(self.idle_seconds, self.timeout_keep_alive_handler)

    def _watch(self) -> None:
        """Start or stop the timer of what the connection waits for, and note it among the waiting ones."""
        part = self._part
        if part is None and self._head:
            part = "head"  # empty lines before a request
        if part == "body":
            self._waiting.for_next(self)
        elif self.cycle is None or self.cycle.response_complete:
            wait = self._waiting.for_next if self._has_asked else self._waiting.for_first_head
            wait(self)
        else:
            self._waiting.remove(self)
        if part == self._timed:
            return
        self._stop_timer()
        if part is not None:
            self._timed = part
            self._start_timer()

    def _start_timer(self) -> None:
        self._arrived = 0
        seconds = self.head_seconds if self._timed == "head" else self.body_seconds
        self._timer = self.loop.call_later(seconds, self._check_progress)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = self._timed = None

    def _check_progress(self) -> None:
        answering = self.cycle is not None and not self.cycle.response_complete
        if self._timed == "head":
            if answering:  # The next request may take as long as the answer to this one.
                self._start_timer()
            else:
                self._refuse(
                    408,
                    "request_timeout",
                    f"the headers did not arrive within {self.head_seconds:g} seconds; send the request at once",
                )
        elif self.flow.read_paused or self._arrived >= PROGRESS_BYTES:
            self._start_timer()
        else:
            self._refuse(
                408,
                "request_timeout",
                f"of the body, {self._arrived} bytes arrived in {self.body_seconds:g} seconds; the least is "
                f"{PROGRESS_BYTES}; send it faster",
            )

    def _expect_reading(self) -> None:
        self._stop_reader()
        unsent = self.transport.get_write_buffer_size()
        self._reader = self.loop.call_later(self.read_seconds, self._check_reading, unsent)

    def _check_reading(self, unsent: int) -> None:
        if self.transport.get_write_buffer_size() > unsent - PROGRESS_BYTES:
            self.transport.abort()
        else:
            self._expect_reading()

    def _stop_reader(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            self._reader = None

    def _refuse_head(self) -> None:
        self._refuse(
            431,
            "headers_too_large",
            f"the request line and headers are over the limit of {MAX_HEAD_BYTES} bytes; send less",
        )

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Answer in the common form, unless an earlier request waits for its answer, and close the connection."""
        if self._refused or self.transport.is_closing():
            return
        if self._may_answer():
            headers = {"Connection": "close", "X-Request-Id": choose_request_id(None)}
            if status == 503:
                headers["Retry-After"] = "1"
            answer = error_response(status, message, code, headers=headers)
            parts = [*self.server_state.default_headers, *with_security_headers(answer.raw_headers)]
            head = b"".join(name + b": " + value + b"\r\n" for name, value in parts)
            self.transport.write(STATUS_LINE[status] + head + b"\r\n" + bytes(answer.body))
            structlog.get_logger().info("request refused", status=status, code=code)
            self._linger()
        else:
            self.close_early()

    def _linger(self) -> None:
        """Close the sending side, and the connection a little later.

        A connection that closes while its client sends is reset, and the client may not see the answer.
        """
        self._end_request()
        if not self.transport.can_write_eof():
            self.transport.close()
            return
        self.transport.write_eof()
        self.flow.resume_reading()
        self._timer = self.loop.call_later(_LINGER_SECONDS, self.transport.close)

    def _end_request(self) -> None:
        self._refused = True
        self._head = 0
        self._stop_timer()
        if self.cycle is not None:
            # The route has no answer to send any more.
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def _may_answer(self) -> bool:
        """Tell whether no earlier request waits for its answer, and the present one has none of its own yet."""
        if self._part == "body":
            return not self.cycle.response_started and all(cycle is not self.cycle for cycle, _ in self.pipeline)
        return self.cycle is None or self.cycle.response_complete
