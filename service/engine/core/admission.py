"""Admit or refuse requests by the inputs and tokens that already wait."""

from __future__ import annotations

import math
import threading
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from rootstock.service.engine.core.errors import Overloaded, TooLarge

# Used to estimate a text's tokens before it is tokenised: an English token has about four characters.
_CHARACTERS_A_TOKEN = 4
# A text can have more characters than its tokens account for. Reading 64 of those takes about as long as running
# one token.
_CHARACTERS_READ = 64
# The weight of earlier batches in the rate: each batch counts 0.9 times as much as the next.
_MEMORY = 0.9
_LONGEST_RETRY_S = 30
_RETRY = "retry after the time in Retry-After"
# One claimant may queue at most four times what it leaves free for others: four fifths of the queue if alone.
_SHARE = 4
# The queue is busy for shadows of requests once this share of it is full.
_BUSY = 1 / 16


@dataclass(frozen=True)
class Capacity:
    """The queue's limits on waiting work: at most `items` inputs and `tokens` tokens.

    A request waits from its arrival until its rows run.
    """

    items: int = 2048
    tokens: int = 262_144


@dataclass(eq=False, slots=True)
class Ticket:
    """The part of a call that still waits, and its claimant. `open` until nobody waits for the call any more."""

    items: int = 0
    tokens: int = 0
    open: bool = False
    claimant: Hashable = None


class Admission:
    """A counter of waiting work that refuses a call that does not fit.

    Any thread may call it; no call waits long.

    Text that is not tokenised yet counts with an estimate. One claimant cannot fill the queue and leave others no
    room: it may queue at most `_SHARE` times what it leaves free (dynamic thresholds: Choudhury and Hahne 1998).
    The more claimants there are, the smaller is each one's limit. A claimant's only call may be as large as the
    queue. Calls without a claimant may fill the whole queue.
    """

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self._lock = threading.Lock()
        self._items = self._tokens = 0
        self._claims: dict[Hashable, tuple[int, int]] = {}
        self._ran_tokens = self._ran_seconds = 0.0
        self._calls = self._waiting_calls = 0

    def enter(self, items: int, tokens: int, claimant: Hashable = None) -> Ticket:
        """Return a ticket for a call of `items` inputs and about `tokens` tokens in all.

        Raise Overloaded if the call does not fit now, and TooLarge if it has more inputs than the queue can hold.
        `tokens` is an estimate, so it never raises TooLarge.
        """
        tokens = min(tokens, self.capacity.tokens)
        ticket = Ticket(open=True, claimant=claimant)
        with self._lock:
            self._set(ticket, items, tokens)
            self._calls += 1
        return ticket

    def settle(self, ticket: Ticket, items: int, tokens: int) -> None:
        """Replace the call's estimate by its actual rows and tokens.

        Raise Overloaded if the increase does not fit now, and TooLarge if the queue can never hold the call.
        """
        with self._lock:
            if ticket.open:
                self._set(ticket, items, tokens)

    def take(self, ticket: Ticket, tokens: int) -> None:
        """Stop counting one row of `tokens` tokens, because it runs."""
        with self._lock:
            if ticket.open:
                self._count(ticket, ticket.items - 1, ticket.tokens - tokens)

    def leave(self, ticket: Ticket) -> None:
        """Stop counting the rest of the call, because nobody waits for it."""
        with self._lock:
            self._count(ticket, 0, 0)
            self._calls -= ticket.open
            ticket.open = False

    def ran(self, tokens: int, seconds: float) -> None:
        """Note that a batch ran `tokens` tokens in `seconds`."""
        self._ran_tokens = _MEMORY * self._ran_tokens + tokens
        self._ran_seconds = _MEMORY * self._ran_seconds + seconds

    def waiting(self) -> tuple[int, int]:
        """Return the inputs and tokens that wait."""
        with self._lock:
            return self._items, self._tokens

    def calls(self) -> tuple[int, int]:
        """Return the admitted calls of which a part still waits, and those of which all parts run or have run."""
        with self._lock:
            return self._waiting_calls, self._calls - self._waiting_calls

    def check_idle(self) -> None:
        """Raise Overloaded if so much waits that work that nobody waits for must not begin."""
        with self._lock:
            if self._items > _BUSY * self.capacity.items or self._tokens > _BUSY * self.capacity.tokens:
                raise Overloaded(f"queue busy ({self._items} inputs wait); {_RETRY}", self._retry_after())

    def _set(self, ticket: Ticket, items: int, tokens: int) -> None:
        claim = self._claims.get(ticket.claimant, (0, 0))
        checks = (
            (items, ticket.items, self._items, claim[0], self.capacity.items, "inputs"),
            (tokens, ticket.tokens, self._tokens, claim[1], self.capacity.tokens, "tokens"),
        )
        for new, _, _, _, most, unit in checks:
            if new > most:
                message = f"{new} {unit} in one request; the queue holds at most {most}; split the request"
                raise TooLarge(message, "inputs")
        for new, before, total, own, most, unit in checks:
            waiting, same = total - before, own - before
            if waiting + new > most:
                message = f"queue full ({waiting} of {most} {unit}; this request adds {new}); {_RETRY}"
                raise Overloaded(message, self._retry_after())
            if new > before and same > 0 and same + new > _SHARE * (most - waiting - new):
                message = f"queue limit for this model reached ({same} of {waiting} queued {unit}); {_RETRY}"
                raise Overloaded(message, self._retry_after())
        self._count(ticket, items, tokens)

    def _count(self, ticket: Ticket, items: int, tokens: int) -> None:
        change = items - ticket.items, tokens - ticket.tokens
        self._waiting_calls += (items > 0) - (ticket.items > 0)
        self._items += change[0]
        self._tokens += change[1]
        if ticket.claimant is not None:
            claim = self._claims.pop(ticket.claimant, (0, 0))
            claim = claim[0] + change[0], claim[1] + change[1]
            if claim != (0, 0):
                self._claims[ticket.claimant] = claim
        ticket.items, ticket.tokens = items, tokens

    def _retry_after(self) -> int:
        """Return the seconds until the work that waits now has run, at the rate of the last batches: 1 to 30."""
        if not self._ran_tokens:
            return 1
        seconds = self._tokens * self._ran_seconds / self._ran_tokens
        return min(max(1, math.ceil(seconds)), _LONGEST_RETRY_S)


def estimated_tokens(texts: Sequence[str | tuple[str, str]], most: int) -> int:
    """Estimate the cost of texts in tokens: at most `most` tokens each, and the time to read the rest."""
    return sum(_estimate(len(t) if isinstance(t, str) else len(t[0]) + len(t[1]), most) for t in texts)


def _estimate(length: int, most: int) -> int:
    """Estimate the cost of one text in tokens. Characters beyond `most` tokens cost the time to read them."""
    beyond = max(0, length - most * _CHARACTERS_A_TOKEN)
    return min(most, 1 + length // _CHARACTERS_A_TOKEN) + beyond // _CHARACTERS_READ
