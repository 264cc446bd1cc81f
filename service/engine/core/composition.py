"""Compose adapters of one foundation into one: a stack of their ranks, with the head of one of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from rootstock.adapters.bundle.weights import in_one_array
from rootstock.adapters.spec import Adapter, Array, SiteUpdate
from rootstock.adapters.strict_json.canonical import digest_of
from rootstock.service.engine.core.errors import InvalidComposition

# The limits of a request. Each part is resolved, and a larger weight is a mistake rather than a strength.
MOST_PARTS = 16
MOST_WEIGHT = 10.0


@dataclass(frozen=True, slots=True)
class CompositionPart:
    """One adapter of a composition, and the factor of its updates."""

    digest: str
    weight: float


@dataclass(frozen=True)
class Composition:
    """Adapters of one foundation that answer as one, in order.

    `head` is the index of the part that answers: its head, labels, preprocessing and prompting are those of the
    composition.
    """

    parts: tuple[CompositionPart, ...]
    head: int

    @cached_property
    def digest(self) -> str:
        """Return the digest of the parts' digests, their weights and order, and the place of the head."""
        parts = [{"digest": part.digest, "weight": float(part.weight)} for part in self.parts]
        return digest_of({"composition": parts, "head": self.head})


# An adapter by its digest, or a composition.
Wanted = str | Composition


def digest_of_wanted(wanted: Wanted) -> str:
    """Return the digest of an adapter or of a composition."""
    return wanted if isinstance(wanted, str) else wanted.digest


def digests_held(wanted: Sequence[Wanted]) -> Iterator[str]:
    """Yield the digests that must stay for a call: of a composition its own and those of its parts."""
    for one in wanted:
        yield digest_of_wanted(one)
        if isinstance(one, Composition):
            yield from (part.digest for part in one.parts)


def compose(composition: Composition, adapters: Sequence[Adapter], max_rank: int) -> Adapter:
    """Return the adapter that changes each weight by the weighted sum of its parts' changes.

    `adapters` are those of the parts, in order. At each site A is [A₁; A₂; …] and B is [w₁B₁; w₂B₂; …]. Trained
    biases are shifts, and add up in the same way. The weight of a part scales no head. A calibration is left out,
    because it was fitted to the part alone.

    Raise InvalidComposition for parts that do not add up, or more ranks at a site than `max_rank`.
    Source: PEFT's `add_weighted_adapter(combination_type="cat")`.
    """
    _check(composition, adapters)
    weights = [part.weight for part in composition.parts]
    sites = {}
    for site in dict.fromkeys(name for adapter in adapters for name in adapter.weights.sites):
        updates = [
            (adapter.weights.sites[site], weight)
            for adapter, weight in zip(adapters, weights, strict=True)
            if weight and site in adapter.weights.sites
        ]
        if updates:
            sites[site] = _stacked(site, updates, max_rank)
    head = adapters[composition.head]
    stacked = in_one_array(sites, head.weights.head)
    return replace(head, digest=composition.digest, weights=stacked, calibration=None)


def _check(composition: Composition, adapters: Sequence[Adapter]) -> None:
    """Raise InvalidComposition for a part that would change nothing, or whose changes do not add up."""
    for i, adapter in enumerate(adapters):
        if adapter.weights.changes_vocabulary or adapter.preprocessing.tokens:
            raise InvalidComposition(
                f"adapters[{i}] brings tokens or changes words of the foundation, and these do not add up; send "
                "it alone as model",
                f"adapters[{i}]",
            )
    if not any(adapter.weights.sites for adapter in adapters):
        raise InvalidComposition(
            "no part changes a layer of the foundation, so there is nothing to add up; send the adapter whose "
            "head you want as model",
            "adapters",
        )
    for i, adapter in enumerate(adapters):
        where = f"adapters[{i}]"
        if not adapter.weights.sites and i != composition.head:
            raise InvalidComposition(
                f"{where} is a head alone, and the composition has the head of adapters[{composition.head}]: it "
                "would change nothing; leave it out, or name it as head",
                where,
            )
        for site, update in adapter.weights.sites.items():
            if update.input_scale is not None or update.output_scale is not None:
                raise InvalidComposition(
                    f"{where} is of the kind {_multiplier(update)}: it multiplies what {site} computes, and such "
                    "changes do not add up to a stack of ranks; compose LoRA, rsLoRA, AdaLoRA and adapters that "
                    "were converted to LoRA",
                    where,
                )


def _multiplier(update: SiteUpdate) -> str:
    """Return the kind of an update with a scale. DoRA alone has a low-rank part too."""
    return "DoRA" if update.rank else "IA3 or LN tuning"


def _stacked(site: str, updates: Sequence[tuple[SiteUpdate, float]], max_rank: int) -> SiteUpdate:
    """Return the sum of weighted updates of one site."""
    # A pooler that was saved whole has full rank, which the limit does not concern (bundle/kinds/pooler.py).
    limited = sum(update.rank for update, _ in updates if update.rank <= max_rank)
    if limited > max_rank:
        raise InvalidComposition(
            f"the parts have rank {limited} together at {site}; this server serves at most {max_rank}; leave "
            "parts out, or raise ROOTSTOCK_MAX_RANK on the server",
            "adapters",
        )
    with np.errstate(all="ignore"):
        a = np.concatenate([update.a for update, _ in updates])
        b = np.concatenate([update.b * np.float32(weight) for update, weight in updates])
        shift = _shift(updates)
        width = a.shape[1]
        if len(a) > width:
            # The same change with as few ranks as it can need.
            a, b = np.eye(width, dtype=np.float32), np.asarray(a.T @ b, np.float32)
    if not np.isfinite(b).all() or not (shift is None or np.isfinite(shift).all()):
        raise InvalidComposition(
            f"the weighted changes of {site} are too large for fp32; choose smaller weights", "adapters"
        )
    return SiteUpdate(a, b, shift=shift)


def _shift(updates: Sequence[tuple[SiteUpdate, float]]) -> Array | None:
    shifts = [update.shift * np.float32(weight) for update, weight in updates if update.shift is not None]
    return np.asarray(np.sum(shifts, axis=0), np.float32) if shifts else None
