"""The measured costs of one replica, which the simulation runs on."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from rootstock.loadtest.measure.machine import ROOT
from rootstock.loadtest.measure.outcome import BenchmarkRun

COSTS_FILE = ROOT / "loadtest" / "results" / "cluster" / "cluster-costs.json"
# Of a request's work outside the batches, the part before its batch. The rest comes after.
_BEFORE = 0.5
# The pause after which a request costs a replica `pause` more.
PAUSE_S = 0.005
# The threads of others on a core beside a thread that wakes.
BESIDE = (1, 2)


class NoCosts(Exception):
    """A file that cannot be read, or that holds no costs of a replica."""


@dataclass(frozen=True)
class ClusterCosts:
    """Seconds of one core's time, measured while the other cores are idle.

    `passes` has the forward pass by rows and tokens a row, `batch` what a batch costs beside it, `request` what a
    request costs beside its batch. `load` is an adapter's load from the store, `slot` one into a slot, `client`
    the load generator's work for a request. `slowdown` is how many times as long work takes while all cores work.
    `adapter_bytes` is the memory of an adapter. `pause` is what a request costs beside after the cores have
    paused for `PAUSE_S`. `turn` is the share that a pass takes longer after another process on its core.
    `late` has samples of the time that a woken thread waits for a core: first beside one other thread, then
    beside two. `spread` has samples of the time of a batch ÷ its mean.
    """

    passes: Mapping[tuple[int, int], float]
    batch: float = 0.0
    request: float = 0.0
    load: float = 0.0
    slot: float = 0.0
    client: float = 0.0
    slowdown: float = 1.0
    adapter_bytes: int = 1
    pause: float = 0.0
    turn: float = 0.0
    late: tuple[tuple[float, ...], ...] = ()
    spread: tuple[float, ...] = (1.0,)
    _known: dict[tuple[int, int], float] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def before(self) -> float:
        """Return the seconds of a request's work before its batch."""
        return _BEFORE * self.request

    @property
    def after(self) -> float:
        """Return the seconds of a request's work after its batch."""
        return self.request - self.before

    def after_pause(self, seconds: float) -> float:
        """Return what a request costs beside after a pause of so many seconds: in proportion up to PAUSE_S."""
        return self.pause * min(1.0, seconds / PAUSE_S)

    def at_speed(self, pass_seconds: float, rows: int, tokens: int) -> ClusterCosts:
        """Return the costs where a pass of this size takes so long. The waits for a core stay as they are."""
        factor = pass_seconds / self.pass_of(rows, tokens)
        times = ("batch", "request", "load", "slot", "client", "pause")
        return replace(
            self,
            passes={size: factor * seconds for size, seconds in self.passes.items()},
            **{name: factor * getattr(self, name) for name in times},
        )

    def batch_of(self, rows: int, tokens: int) -> float:
        """Return the seconds of a batch. Between and beyond the measured sizes they are linear."""
        known = self._known.get((rows, tokens))
        if known is None:
            known = self._known[rows, tokens] = self.batch + self.pass_of(rows, tokens)
        return known

    def pass_of(self, rows: float, tokens: int) -> float:
        """Return the seconds of a forward pass of so many rows, which may be a mean."""
        low, high, share = _around(self._token_sizes, tokens)
        return (1 - share) * self._of_rows(rows, low) + share * self._of_rows(rows, high)

    def _of_rows(self, rows: float, tokens: int) -> float:
        low, high, share = _around(self._row_sizes, rows)
        return (1 - share) * self.passes[low, tokens] + share * self.passes[high, tokens]

    @cached_property
    def _row_sizes(self) -> list[int]:
        return sorted({rows for rows, _ in self.passes})

    @cached_property
    def _token_sizes(self) -> list[int]:
        return sorted({tokens for _, tokens in self.passes})


def costs_of(run: BenchmarkRun) -> ClusterCosts:
    """Return the costs in a run of `rootstock bench cluster --measure`. Raise KeyError if one is missing."""
    passes = {(stage["rows"], stage["tokens"]): stage["ms"] / 1e3 for stage in run.outcome.stages}
    if not passes:
        raise KeyError("stages")
    rows = {row.extra["cost"]: row for row in run.outcome.measured_rows}
    found = {cost: row.interval.median for cost, row in rows.items()}
    return ClusterCosts(
        passes,
        batch=found["batch"] / 1e3,
        request=found["request"] / 1e3,
        load=found["load"] / 1e3,
        slot=found["slot"] / 1e3,
        client=found["client"] / 1e3,
        slowdown=found["slowdown"],
        adapter_bytes=round(found["adapter"] * 1e3),
        pause=found["pause"] / 1e3,
        turn=found["turn"] - 1,
        late=tuple(tuple(ms / 1e3 for ms in rows[f"late-{beside}"].extra["sample"]) for beside in BESIDE),
        spread=_around_one(rows["spread"].extra["sample"]),
    )


def _around_one(sample: Sequence[float]) -> tuple[float, ...]:
    """Return a sample ÷ its mean, so that draws from it change no mean."""
    mean = sum(sample) / len(sample)
    return tuple(one / mean for one in sample)


def read_costs(path: Path) -> ClusterCosts:
    """Return the costs in a file. Raise NoCosts if it holds none."""
    remedy = "make one with 'rootstock bench cluster --measure'"
    try:
        return costs_of(BenchmarkRun.from_json(json.loads(path.read_text(encoding="utf-8"))))
    except OSError as error:
        raise NoCosts(f"{path} cannot be read: {error.strerror}; {remedy}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise NoCosts(f"{path} holds no costs of a replica ({type(error).__name__}: {error}); {remedy}") from None


def _around(sizes: list[int], size: float) -> tuple[int, int, float]:
    """Return two measured sizes and the share of the second, such that they add up to `size`.

    The share is above 1 beyond the last size, and below 0 before the first.
    """
    if len(sizes) == 1:
        return sizes[0], sizes[0], 0.0
    place = min(max(1, bisect_right(sizes, size)), len(sizes) - 1)
    low, high = sizes[place - 1], sizes[place]
    return low, high, (size - low) / (high - low)
