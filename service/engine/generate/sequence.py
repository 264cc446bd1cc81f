"""Hold one generation in progress: its prompt, its tokens so far, and its place in the cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rootstock.adapters.spec import Adapter
from rootstock.service.engine.core.admission import Ticket
from rootstock.service.engine.core.errors import EngineError
from rootstock.service.engine.core.work import Priority
from rootstock.service.engine.generate.token_sampler import FinishReason, TokenChoice, TokenSampler


@dataclass(frozen=True, slots=True)
class Step:
    """The next token of a sequence, and the reason if it is the last one.

    `is_end` tells whether the token only ends the sequence and is no part of its text.
    """

    choice: TokenChoice
    finish: FinishReason | None = None
    is_end: bool = False


@dataclass(eq=False, slots=True)
class TextSequence:
    """One generation under one adapter.

    The decoder continues `prompt`; an encoder, if the foundation has one, reads `source` first. `deliver`
    receives each Step, or the error that ends the sequence; the decoding thread calls it. `computed` tokens,
    of prompt and answer together, are in `row` of the cache. Of the prompt, `reused` tokens were copied from
    another row. `cost` is the price of the sequence's next turn in tokens; it stays the same while the
    sequence waits. `started` turns true with its first lane and `counted` with its first pass. `left` turns
    true when nobody waits for the sequence any more. Sequences of one `flow` share turns; by default it is the
    adapter's digest. Times are in seconds on the engine's clock.
    """

    adapter: Adapter
    prompt: Sequence[int]
    sampler: TokenSampler
    deliver: Callable[[Step | EngineError], None]
    arrived: float
    deadline: float
    source: Sequence[int] = ()
    tenant: str = ""
    priority: Priority = "normal"
    verifying: bool = False
    ticket: Ticket = field(default_factory=Ticket)
    tokens: list[int] = field(default_factory=list)
    row: int | None = None
    computed: int = 0
    reused: int = 0
    cost: int = 1
    started: bool = False
    counted: bool = False
    left: bool = False
    flow: str = ""

    def __post_init__(self) -> None:
        self.flow = self.flow or self.adapter.digest

    @property
    def digest(self) -> str:
        return self.adapter.digest

    @property
    def length(self) -> int:
        """Return the tokens of prompt and answer so far."""
        return len(self.prompt) + len(self.tokens)

    @property
    def shares(self) -> bool:
        """Tell whether this sequence and others may copy each other's keys and values."""
        return not self.verifying and not self.source

    @property
    def given(self) -> int:
        """Return the tokens of the source and the prompt."""
        return len(self.source) + len(self.prompt)

    @property
    def unread(self) -> int:
        """Return how many tokens of the source the cache lacks: all of them until the first pass."""
        return 0 if self.computed else len(self.source)

    @property
    def pending(self) -> int:
        """Return how many tokens the cache lacks: one while the sequence decodes, more before that."""
        return self.unread + self.length - self.computed

    def next_tokens(self, count: int) -> Sequence[int]:
        """Return the first `count` tokens that the cache lacks."""
        begin, end = self.computed, self.computed + count
        prompt = len(self.prompt)
        if begin >= prompt:
            return self.tokens[begin - prompt : end - prompt]
        return [*self.prompt[begin:end], *self.tokens[: max(0, end - prompt)]]
