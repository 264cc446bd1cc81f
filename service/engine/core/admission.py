"""Admission by one rule, in inputs and in tokens, for all that waits."""

from __future__ import annotations

import math
import threading
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from rootstock.service.engine.core.errors import Overloaded, TooLarge

# The estimate of a text's tokens until it is tokenised: English has about four characters in one.
_CHARACTERS_A_TOKEN = 4
# Of a text with more characters than its tokens explain, so many take about as long to read as a token to run.
_CHARACTERS_READ = 64
# How much the batches before a batch count in the rate.
_MEMORY = 0.9
_LONGEST_RETRY_S = 30
# One claimant may have so many times waiting what it leaves free for others: four fifths of the queue if alone.
_SHARE = 4


@dataclass(frozen=True)
class Capacity:
    """The most that may wait, from a request's arrival until its rows run: `items` inputs and `tokens` tokens."""

    items: int = 2048
    tokens: int = 262_144


@dataclass(eq=False, slots=True)
class Ticket:
    """The part of a call that still waits, and for whom. `open` until nobody waits for the call."""

    items: int = 0
    tokens: int = 0
    open: bool = False
    claimant: Hashable = None


class Admission:
    """Counts what waits and refuses what does not fit. Any thread may call it, and never waits for long.

    Text that is not tokenised yet counts with an estimate. One claimant that floods does not fill the queue: it
    may have waiting `_SHARE` times what it leaves free (dynamic thresholds: Choudhury and Hahne 1998), so that
    others find room; the more of them there are, the less has each. A claimant's only call may be as large as the
    queue, and what has no claimant may fill all.
    """

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self._lock = threading.Lock()
        self._items = self._tokens = 0
        self._claims: dict[Hashable, tuple[int, int]] = {}
        self._ran_tokens = self._ran_seconds = 0.0

    def enter(self, items: int, tokens: int, claimant: Hashable = None) -> Ticket:
        """Return a ticket for so many inputs of about so many tokens.

        Raise Overloaded if they do not fit now, TooLarge if so many inputs never do. An estimate never says so.
        """
        tokens = min(tokens, self.capacity.tokens)
        ticket = Ticket(open=True, claimant=claimant)
        with self._lock:
            self._set(ticket, items, tokens)
        return ticket

    def settle(self, ticket: Ticket, items: int, tokens: int) -> None:
        """Count the call with so many rows and tokens. Raise as `enter` if what it has more does not fit."""
        with self._lock:
            if ticket.open:
                self._set(ticket, items, tokens)

    def take(self, ticket: Ticket, tokens: int) -> None:
        """Count a row of the call, of so many tokens, no more: it runs."""
        with self._lock:
            if ticket.open:
                self._count(ticket, ticket.items - 1, ticket.tokens - tokens)

    def leave(self, ticket: Ticket) -> None:
        """Count what is left of the call no more: nobody waits for it."""
        with self._lock:
            self._count(ticket, 0, 0)
            ticket.open = False

    def ran(self, tokens: int, seconds: float) -> None:
        """Note that a batch ran so many tokens in this time."""
        self._ran_tokens = _MEMORY * self._ran_tokens + tokens
        self._ran_seconds = _MEMORY * self._ran_seconds + seconds

    def waiting(self) -> tuple[int, int]:
        """Return the inputs and tokens that wait."""
        with self._lock:
            return self._items, self._tokens

    def _set(self, ticket: Ticket, items: int, tokens: int) -> None:
        claimed = self._claims.get(ticket.claimant, (0, 0))
        asked = (
            (items, ticket.items, self._items, claimed[0], self.capacity.items, "inputs"),
            (tokens, ticket.tokens, self._tokens, claimed[1], self.capacity.tokens, "tokens"),
        )
        for more, _, _, _, most, unit in asked:
            if more > most:
                raise TooLarge(f"{more} {unit} in one request; the queue holds at most {most}", "inputs")
        for more, had, now, own, most, unit in asked:
            waiting, same = now - had, own - had
            if waiting + more > most:
                told = f"{waiting} {unit} wait and {more} more exceed the queue's {most}; try again"
                raise Overloaded(told, self._retry_after())
            if more > had and same > 0 and same + more > _SHARE * (most - waiting - more):
                told = f"{same} of the {waiting} {unit} that wait are for the same model; with {more} more"
                told += f" too little of the queue's {most} is left to others; try again"
                raise Overloaded(told, self._retry_after())
        self._count(ticket, items, tokens)

    def _count(self, ticket: Ticket, items: int, tokens: int) -> None:
        more = items - ticket.items, tokens - ticket.tokens
        self._items += more[0]
        self._tokens += more[1]
        if ticket.claimant is not None:
            claimed = self._claims.pop(ticket.claimant, (0, 0))
            claimed = claimed[0] + more[0], claimed[1] + more[1]
            if claimed != (0, 0):
                self._claims[ticket.claimant] = claimed
        ticket.items, ticket.tokens = items, tokens

    def _retry_after(self) -> int:
        """Return the seconds in which what waits now will have run, at the rate of the last batches."""
        if not self._ran_tokens:
            return 1
        seconds = self._tokens * self._ran_seconds / self._ran_tokens
        return min(max(1, math.ceil(seconds)), _LONGEST_RETRY_S)


def estimated_tokens(texts: Sequence[str | tuple[str, str]], most: int) -> int:
    """Estimate what texts cost in tokens: those that they have, at most `most` each, and reading the rest."""
    return sum(_estimate(len(t) if isinstance(t, str) else len(t[0]) + len(t[1]), most) for t in texts)


def _estimate(length: int, most: int) -> int:
    """Estimate one text. A text of many characters may be one token, and is then read to its end."""
    beyond = max(0, length - most * _CHARACTERS_A_TOKEN)
    return min(most, 1 + length // _CHARACTERS_A_TOKEN) + beyond // _CHARACTERS_READ
