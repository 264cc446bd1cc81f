"""The plan of shared states: each row's states are its own, and no state is computed twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rootstock.service.engine.runners.sharing import SharingPlan, share

LAYERS = 3
batches = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), min_size=1, max_size=12)
depths = st.fixed_dictionaries({slot: st.integers(0, LAYERS + 1) for slot in range(6)})


def path(plan: SharingPlan, row: int) -> list[int]:
    """A row's state at each level, first to last."""
    states = [plan.states[row]]
    for level in reversed(plan.levels[1:]):
        states.append(level.parents[states[-1]])
    return states[::-1]


@given(batches, depths)
def test_each_row_passes_through_states_of_its_own_input_and_adapter(
    rows: list[tuple[int, int]], depths: dict[int, int]
) -> None:
    inputs, slots = [r[0] for r in rows], [r[1] for r in rows]
    plan = share(inputs, slots, depths, LAYERS)
    for i, (source, slot) in enumerate(rows):
        states = path(plan, i)
        assert plan.levels[0].parents[states[0]] == source
        assert plan.inputs[plan.states[i]] == source
        for layer, (level, state) in enumerate(zip(plan.levels, states, strict=True)):
            assert level.roots[state] == states[0]
            assert level.slots[state] == (slot if depths[slot] <= layer else None)


@given(batches, depths)
def test_no_level_holds_one_input_under_one_adapter_twice(
    rows: list[tuple[int, int]], depths: dict[int, int]
) -> None:
    inputs, slots = [r[0] for r in rows], [r[1] for r in rows]
    plan = share(inputs, slots, depths, LAYERS)
    for level in plan.levels:
        seen = [(plan.levels[0].parents[r], s) for r, s in zip(level.roots, level.slots, strict=True)]
        assert len(seen) == len(set(seen))


def test_twenty_adapters_on_the_top_third_share_the_layers_below_it() -> None:
    plan = share([0] * 20, range(20), dict.fromkeys(range(20), 2), LAYERS)
    assert [len(level) for level in plan.levels] == [1, 1, 20, 20]
    assert plan.saving == 1 - 22 / 60


def test_rows_that_change_nothing_of_the_trunk_cost_one_state_an_input() -> None:
    plan = share([0, 1, 0, 1], [1, 2, 3, 4], dict.fromkeys(range(1, 5), LAYERS + 1), LAYERS)
    assert [len(level) for level in plan.levels] == [2, 2, 2, 2]
    assert plan.states == (0, 1, 0, 1)


def test_an_adapter_of_the_first_layer_shares_nothing_with_another() -> None:
    plan = share([0, 0], [1, 2], {1: 0, 2: 4}, LAYERS)
    assert [len(level) for level in plan.levels] == [2, 2, 2, 2]
    assert plan.levels[0].slots == (1, None)
