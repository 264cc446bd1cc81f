"""The updates of a pass: each token gets its adapter's, and a pass after another copies little."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rootstock.adapters.spec import Array, SiteUpdate
from rootstock.service.engine.runners.decoder.adapter_mix import AdapterMix, TokenRun, UpdateStack
from rootstock.service.engine.runners.decoder.packed_pass import PackedPart, PackedPass
from rootstock.service.engine.runners.decoder.site_group import alone, join_layers, together
from rootstock.service.engine.runners.decoder.token_site import MixInUse, TokenSite
from rootstock.service.engine.runners.decoder.updates import LowRankPart, TensorUpdate, stage_updates

IN, OUT = 6, 5


def _update(seed: int, rank: int) -> TensorUpdate:
    draw = torch.Generator().manual_seed(seed)
    a, b = torch.randn(rank, IN, generator=draw), torch.randn(rank, OUT, generator=draw)
    return TensorUpdate(a, (LowRankPart(None, None, b),) if rank else ())


def _change(update: TensorUpdate, x: torch.Tensor) -> torch.Tensor:
    return x @ update.a.T @ update.parts[0].b if update.parts else torch.zeros(*x.shape[:-1], OUT)


_PASSES = st.lists(
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 3)), min_size=1, max_size=12), min_size=1, max_size=8
)


@settings(deadline=None)
@given(ranks=st.lists(st.sampled_from([0, 2, 2, 3]), min_size=9, max_size=9), passes=_PASSES)
def test_each_token_gets_the_update_of_its_adapter_whatever_passes_came_before(
    ranks: list[int], passes: list[list[tuple[int, int]]]
) -> None:
    mix = AdapterMix()
    mix.place(0, {})
    updates = {slot: _update(slot, rank) for slot, rank in enumerate(ranks, start=1)}
    for slot, update in updates.items():
        mix.place(slot, {"site": update} if slot % 4 else {})
    for number, chosen in enumerate(passes):
        decodes = number % 2 == 0
        parts = [PackedPart(slot, [0] * (1 if decodes else length)) for slot, length in chosen]
        tokens = PackedPass(parts, mix, decodes)
        x = torch.randn(tokens.ids.shape[1], IN)
        y = torch.zeros(len(x), OUT)
        plan = mix.plan("site")
        for part in plan.low_rank if plan is not None else ():
            part.add(y, x)
        for part, (first, end) in zip(parts, tokens.bounds, strict=True):
            update = updates.get(part.slot)
            own = x[first:end]
            changed = update is not None and part.slot % 4
            expected = _change(update, own) if changed and update is not None else torch.zeros(len(own), OUT)
            torch.testing.assert_close(y[first:end], expected)


@given(
    passes=st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=12, unique=True), min_size=2, max_size=8)
)
def test_adapters_that_stay_keep_their_places_unless_one_fills_a_gap(passes: list[list[int]]) -> None:
    mix = AdapterMix()
    for slot in range(13):
        mix.place(slot, {"site": _update(slot, 2)} if slot else {})
    before: dict[int, int] = {}
    for slots in passes:
        places = dict(mix.order(slots))
        adapters = {slot: place for slot, place in places.items() if slot}
        assert sorted(adapters.values()) == list(range(len(adapters)))
        assert 0 not in places or places[0] >= len(adapters)
        moved = [slot for slot in adapters if before.get(slot, adapters[slot]) != adapters[slot]]
        assert len(moved) <= len(before.keys() - adapters.keys())
        before = adapters


@settings(deadline=None)
@given(passes=st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=10), min_size=1, max_size=10))
def test_a_stack_holds_the_updates_that_were_asked_for_in_their_order(passes: list[list[int]]) -> None:
    updates = [_update(i, 2) for i in range(10)]
    stack = UpdateStack()
    for chosen in passes:
        a, [part] = stack.of([updates[i] for i in chosen])
        assert torch.equal(a, torch.stack([updates[i].a for i in chosen]))
        assert torch.equal(part.b, torch.stack([updates[i].parts[0].b for i in chosen]))


def test_an_adapter_that_replaces_another_in_its_slot_is_applied_in_the_next_pass() -> None:
    mix = AdapterMix()
    runs = [TokenRun(slot, slot, slot + 1) for slot in range(3)]
    for slot in range(3):
        mix.place(slot, {"site": _update(slot, 2)})
    x = torch.randn(3, IN)
    for seed in (1, 7):
        mix.place(1, {"site": _update(seed, 2)})
        mix.take(runs, decodes=True)
        y = torch.zeros(3, OUT)
        plan = mix.plan("site")
        assert plan is not None
        for part in plan.low_rank:
            part.add(y, x)
        update = _update(seed, 2)
        torch.testing.assert_close(y[1], _change(update, x[1]))


_WIDTHS = {"layers.0.q_proj": 4, "layers.0.k_proj": 2, "layers.0.v_proj": 3}
_CHANGES = st.lists(
    st.lists(st.sampled_from(["none", "lora", "wide", "dora", "ia3", "bias"]), min_size=3, max_size=3),
    min_size=1,
    max_size=8,
)


def _site_update(kind: str, out: int, draw: np.random.Generator) -> SiteUpdate | None:
    def vector(size: int) -> Array:
        return draw.normal(1, 0.5, size).astype(np.float32)

    rank = {"lora": 2, "wide": 3, "dora": 2}.get(kind, 0)
    a, b = (draw.normal(0, 1, (rank, size)).astype(np.float32) for size in (IN, out))
    changes = {"dora": ("output_scale",), "ia3": ("input_scale", "output_scale"), "bias": ("shift",)}
    vectors = {name: vector(IN if name == "input_scale" else out) for name in changes.get(kind, ())}
    return None if kind == "none" else SiteUpdate(a, b, **vectors)


@settings(deadline=None)
@given(adapters=_CHANGES, lengths=st.lists(st.integers(1, 2), min_size=8, max_size=8), decodes=st.booleans())
def test_sites_that_are_one_product_give_what_each_gives_alone(
    adapters: list[list[str]], lengths: list[int], decodes: bool
) -> None:
    draw = np.random.default_rng(0)
    [group] = together(_WIDTHS)
    assert group.names == tuple(_WIDTHS)
    layers = [torch.nn.Linear(IN, out, bias=i > 0) for i, out in enumerate(_WIDTHS.values())]
    updates = [
        {
            name: update
            for (name, out), kind in zip(_WIDTHS.items(), kinds, strict=True)
            if (update := _site_update(kind, out, draw)) is not None
        }
        for kinds in adapters
    ]
    with torch.inference_mode():
        results = []
        for groups in ([group], alone(_WIDTHS)):
            in_use = MixInUse()
            in_use.mix = mix = AdapterMix()
            for slot, sites in enumerate(updates):
                mix.place(slot, stage_updates(sites, groups, torch.float32))
            parts = [
                PackedPart(slot, [0] * (1 if decodes else length))
                for slot, length in zip(range(len(adapters)), lengths, strict=False)
            ]
            tokens = PackedPass(parts, mix, decodes)
            x = torch.linspace(-1, 1, tokens.ids.numel() * IN).view(1, -1, IN)
            joined = [layers] if len(groups) == 1 else [[layer] for layer in layers]
            outputs = [
                TokenSite(join_layers(own), one, in_use)(x) for own, one in zip(joined, groups, strict=True)
            ]
            results.append((torch.cat(outputs, -1), tokens.bounds))
    (joint, bounds), (single, others) = results
    assert bounds == others
    torch.testing.assert_close(joint, single)
