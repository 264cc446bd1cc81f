"""The records of shadows and rollback rules, and of the verdicts of rules."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from rootstock.adapters.errors import InvalidRule, InvalidShadow

# Who changes an adapter by its rollback rule, in events.
RULE = "rule"
# How a version gets requests for `live`: it is live, a split gives it a share, or it computes without answering.
Stage = Literal["live", "split", "shadow"]
# The limit of a rule that a version broke.
Reason = Literal["max_error_rate", "max_disagreement", "max_p95_ratio"]
# The result of a shadow. "dropped": it did not run, because the server was busy.
ShadowResult = Literal["agreed", "differed", "failed", "dropped"]
# A server keeps this many of a version's newest requests, so a rule cannot ask for more.
MAX_REQUESTS = 1000
MAX_WINDOW_SECONDS = 86_400.0
MAX_P95_RATIO = 1000.0


@dataclass(frozen=True, slots=True)
class Shadow:
    """A version that also computes a share of live's requests, in percent, without answering them."""

    version: int
    percent: float

    def check(self) -> None:
        """Raise InvalidShadow for a share that is not above 0 and at most 100 percent."""
        if not 0 < self.percent <= 100:
            raise InvalidShadow(
                f"percent is {self.percent:g}; give a number above 0 and at most 100", param="percent"
            )


@dataclass(frozen=True, slots=True)
class RollbackRule:
    """The limits that a new version of an adapter has to keep; one that is None does not hold.

    The rule judges the requests of the last `window_seconds`, once there are `min_requests`. `max_error_rate` and
    `max_disagreement` are shares from 0 to 1. `max_p95_ratio` is over the incumbent's p95 of the time to compute.
    """

    window_seconds: float = 300.0
    min_requests: int = 50
    max_error_rate: float | None = None
    max_disagreement: float | None = None
    max_p95_ratio: float | None = None

    def check(self) -> None:
        """Raise InvalidRule for a value outside its bounds, and for a rule without any limit."""
        bounds: tuple[tuple[str, float | None, float, float], ...] = (
            ("window_seconds", self.window_seconds, 1.0, MAX_WINDOW_SECONDS),
            ("min_requests", self.min_requests, 1, MAX_REQUESTS),
            ("max_error_rate", self.max_error_rate, 0.0, 1.0),
            ("max_disagreement", self.max_disagreement, 0.0, 1.0),
            ("max_p95_ratio", self.max_p95_ratio, 1.0, MAX_P95_RATIO),
        )
        for name, value, least, most in bounds:
            if value is not None and not (math.isfinite(value) and least <= value <= most):
                raise InvalidRule(f"{name} is {value:g}; give a number from {least:g} to {most:g}", param=name)
        if self.max_error_rate is None and self.max_disagreement is None and self.max_p95_ratio is None:
            raise InvalidRule(
                "the rule has no limit; give max_error_rate, max_disagreement or max_p95_ratio",
                param="max_disagreement",
            )

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class NamedShadow:
    """The shadow of an adapter."""

    name: str
    shadow: Shadow


@dataclass(frozen=True, slots=True)
class NamedRule:
    """The rollback rule of an adapter."""

    name: str
    rule: RollbackRule


@dataclass(frozen=True, slots=True)
class Rollout:
    """The facts by which a server shadows and judges an adapter, by the name that the registry keeps.

    `before` is the version that `live` pointed at before its last move, at `moved_at`. It is None if it is gone,
    or if that move was a rollback. `candidates` has the percents of the split of `live`, by version.
    """

    name: str
    live: int | None
    before: int | None
    moved_at: datetime | None
    candidates: dict[int, float]
    shadow: Shadow | None
    rule: RollbackRule | None


@dataclass(frozen=True, slots=True)
class RuleVerdict:
    """A version of an adapter that broke its rule at a stage: `measured` is over `limit` in `requests`.

    `incumbent` is the version that it was compared with. `name` is the name that the registry keeps.
    """

    name: str
    stage: Stage
    version: int
    incumbent: int
    reason: Reason
    measured: float
    limit: float
    requests: int

    def detail(self) -> dict[str, Any]:
        """Return the reason and its figures, as an event states them."""
        return {
            "reason": self.reason,
            "measured": self.measured,
            "limit": self.limit,
            "requests": self.requests,
            "incumbent": self.incumbent,
        }
