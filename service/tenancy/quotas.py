"""The quotas of keys and tenants: requests and tokens a minute, and bytes stored."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter, RateLimiter, SlidingWindowCounterRateLimiter

from rootstock.adapters.registry.quota_port import Use
from rootstock.service.engine.core.answer import RequestRecord
from rootstock.service.engine.core.observer import GenerationStats, Observer
from rootstock.service.tenancy.errors import QuotaExceeded, StoredQuotaExceeded
from rootstock.service.tenancy.key_ring import KeyRing
from rootstock.service.tenancy.principal import Principal

_WINDOW = 60
_MIB = 2**20

# Charges the tokens of an answer to whoever the request under way is from.
_CHARGE: ContextVar[Callable[[int], None] | None] = ContextVar("charge", default=None)


@dataclass(frozen=True, slots=True)
class Allowance:
    """One limit of one holder. `name` is the policy's in the headers, `holder` tells holders apart."""

    name: str
    holder: str
    limit: int
    unit: str

    @property
    def item(self) -> RateLimitItemPerMinute:
        """Return the limit in the form of the library."""
        return RateLimitItemPerMinute(self.limit, namespace=self.unit)


class Quotas:
    """The use of each key and each tenant in the last minute.

    Without `note`, it is the use in this process. With it, `note` tells other servers what is spent here, and
    `hear` counts what is spent there.

    Requests are counted in a moving window. Tokens are counted in a sliding window, because a moving one keeps an
    entry for each token. A call's tokens are known once it is answered. Those beyond the limit are a debt: the
    holder's next calls are refused until later minutes have paid it.
    """

    def __init__(self, ring: KeyRing, note: Callable[[Use, int], None] = lambda use, amount: None) -> None:
        storage = MemoryStorage()
        self._ring = ring
        self._note = note
        self._limiters: dict[str, RateLimiter] = {
            "requests": MovingWindowRateLimiter(storage),
            "tokens": SlidingWindowCounterRateLimiter(storage),
        }
        self._debts: defaultdict[str, int] = defaultdict(int)

    def admit(self, principal: Principal) -> dict[str, str]:
        """Count a request, and return the headers that describe the quotas.

        Raise QuotaExceeded, without counting it, if a quota of its key or its tenant is used up.
        """
        allowances = self._allowances(principal)
        for one in allowances:
            if one.unit == "tokens":
                self._pay(one)
        for one in allowances:
            if self._left(one) < 1:
                whose, unit = one.name.split("-")
                raise QuotaExceeded(
                    f"the quota of {one.limit} {unit} a minute of this {whose} is used up; try again in "
                    f"{self._wait(one)} s, or ask the operator for more",
                    self._wait(one),
                    self._headers(allowances),
                )
        for one in allowances:
            if one.unit == "requests":
                self._limiters[one.unit].hit(one.item, one.holder)
                self._note(Use(one.holder, one.unit), 1)
        return self._headers(allowances)

    def spend(self, principal: Principal, tokens: int) -> None:
        """Charge the tokens of an answer."""
        for one in self._allowances(principal):
            if one.unit == "tokens":
                self._note(Use(one.holder, one.unit), tokens)
                self._debts[one.holder] += tokens
                self._pay(one)

    def hear(self, use: Use, amount: int) -> None:
        """Count what another server let a holder spend. Requests beyond the limit are no debt."""
        whose, name = use.holder.split("/", 1)
        quota = self._ring.quota(name) if whose == "key" else self._ring.tenant_quota(name)
        limit = quota.tokens_per_minute if use.unit == "tokens" else quota.requests_per_minute
        if limit is None:
            return
        one = Allowance(f"{whose}-{use.unit}", use.holder, limit, use.unit)
        if use.unit == "tokens":
            self._debts[use.holder] += amount
            self._pay(one)
        elif spent := min(amount, self._left(one)):
            self._limiters[use.unit].hit(one.item, use.holder, cost=spent)

    @contextmanager
    def charging(self, principal: Principal) -> Iterator[None]:
        """Charge what TokenCharges observes in this context to a principal."""
        token = _CHARGE.set(partial(self.spend, principal))
        try:
            yield
        finally:
            _CHARGE.reset(token)

    def check_stored(self, principal: Principal, size: int, digest: str) -> None:
        """Raise StoredQuotaExceeded if the tenant would store too much with a bundle of `size` bytes.

        This reads the registry: call it in a thread.
        """
        limits = {
            "key": self._ring.quota(principal.key).stored_mb,
            "tenant": self._ring.tenant_quota(principal.tenant).stored_mb,
        }
        smallest = min((limit for limit in limits.values() if limit is not None), default=None)
        if smallest is None:
            return
        stored = self._ring.registry.stored_bytes(principal.tenant, besides=digest)
        if stored + size > smallest * _MIB:
            raise StoredQuotaExceeded(
                f"the bundle has {size} bytes and the tenant stores {stored}; its quota is {smallest} MiB; "
                "delete versions for good (?purge=true), or ask the operator for more"
            )

    def _allowances(self, principal: Principal) -> list[Allowance]:
        found = []
        for whose, name, quota in (
            ("key", principal.key, self._ring.quota(principal.key)),
            ("tenant", principal.tenant, self._ring.tenant_quota(principal.tenant)),
        ):
            for unit, limit in (("requests", quota.requests_per_minute), ("tokens", quota.tokens_per_minute)):
                if limit is not None:
                    found.append(Allowance(f"{whose}-{unit}", f"{whose}/{name}", limit, unit))
        return found

    def _left(self, one: Allowance) -> int:
        if one.unit == "tokens" and self._debts.get(one.holder):
            return 0
        return max(0, self._limiters[one.unit].get_window_stats(one.item, one.holder).remaining)

    def _pay(self, one: Allowance) -> None:
        """Count as much of a debt as the window has room for."""
        debt = self._debts.get(one.holder, 0)
        limiter = self._limiters[one.unit]
        paid = min(debt, limiter.get_window_stats(one.item, one.holder).remaining)
        if paid > 0 and limiter.hit(one.item, one.holder, cost=paid):
            debt -= paid
        if debt:
            self._debts[one.holder] = debt
        else:
            self._debts.pop(one.holder, None)

    def _wait(self, one: Allowance) -> int:
        """Return the seconds until a call may succeed, at least 1."""
        reset = self._limiters[one.unit].get_window_stats(one.item, one.holder).reset_time - time.time()
        debt = self._debts.get(one.holder, 0) * _WINDOW / one.limit if one.unit == "tokens" else 0.0
        return max(1, math.ceil(max(reset, debt)))

    def _headers(self, allowances: list[Allowance]) -> dict[str, str]:
        """Return the header fields of draft-ietf-httpapi-ratelimit-headers, none without a quota."""
        if not allowances:
            return {}
        policies, states = [], []
        for one in allowances:
            # A policy without a unit counts requests.
            unit = "" if one.unit == "requests" else f';qu="{one.unit}"'
            policies.append(f'"{one.name}";q={one.limit};w={_WINDOW}{unit}')
            states.append(f'"{one.name}";r={self._left(one)};t={self._wait(one)}')
        return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(states)}


class TokenCharges(Observer):
    """An observer that charges each answer's tokens to the principal of the request under way."""

    def served(self, served: RequestRecord) -> None:
        """Charge a reference that was answered. One that failed costs nothing."""
        if served.error is None:
            _charge(served.request.progress.cost)

    def generated(self, stats: GenerationStats) -> None:
        """Charge the prompt and all tokens that were generated, also of a call that ended early."""
        _charge(stats.prompt_tokens + stats.tokens)


def _charge(tokens: int) -> None:
    charge = _CHARGE.get()
    if charge is not None:
        charge(tokens)
