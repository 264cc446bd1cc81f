"""What a batch costs the torch runner: its own sites, ranks and shapes, and no state twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rootstock.service.engine.runners.torch import graphs as torch_graphs
from rootstock.service.engine.runners.torch import updates as torch_updates
from rootstock.service.engine.runners.torch.feed import token_size
from rootstock.service.engine.runners.torch.graphs import Graphs
from rootstock.service.engine.runners.torch.runner import TorchRunner
from tests.service.engine.torch_adapters import (
    BARE,
    COUNT,
    HEAD_ONLY,
    MIDDLE,
    POOLER,
    RANK_1,
    RANK_8,
    RANK_40,
    TAGGER_ONLY,
    Made,
    batch_of,
    make,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def plain(made: Made) -> TorchRunner:
    return made.runner(range(COUNT))


def parts_held(
    runner: TorchRunner, rows: Sequence[tuple[int, int]]
) -> tuple[dict[str, dict[str, int]], list[int]]:
    """While a batch runs: the parts that each site holds with their second dimension, which is the rank, and how
    many states each layer computes."""
    held: dict[str, dict[str, int]] = {}
    states: dict[int, int] = {}

    def watch(name: str) -> Any:
        def seen(site: Any, args: tuple[torch.Tensor], _: torch.Tensor) -> None:
            held[name] = {part: tensor.shape[1] for part, tensor in site.parts.items()}
            states[runner.spec.layer_of(name)] = args[0].shape[0]

        return seen

    sites = {name: runner._trunk._sites[name] for name in runner.spec.sites}
    handles = [site.register_forward_hook(watch(name)) for name, site in sites.items()]
    runner.run(batch_of(rows))
    for handle in handles:
        handle.remove()
    assert not any(site.parts for site in sites.values()), "nothing of a batch is kept"
    return {name: parts for name, parts in held.items() if parts}, [states[i] for i in sorted(states)]


def test_a_site_that_no_row_s_adapter_touches_is_left_as_it_is(plain: TorchRunner) -> None:
    assert parts_held(plain, [(BARE, 0), (HEAD_ONLY, 1)])[0] == {}
    held = parts_held(plain, [(BARE, 0), (RANK_1, 1), (HEAD_ONLY, 2)])[0]
    assert held == {f"encoder.layer.2.attention.self.{kind}": {"A": 8, "B": 8} for kind in ("query", "value")}


@pytest.mark.parametrize(("slots", "rank"), [([RANK_8, RANK_1], 8), ([RANK_8, RANK_40], 40)])
def test_a_batch_pays_for_its_own_largest_rank_at_each_site(
    plain: TorchRunner, slots: list[int], rank: int
) -> None:
    held = parts_held(plain, [(slot, i) for i, slot in enumerate(slots)])[0]
    assert held["encoder.layer.0.attention.self.query"] == {"A": rank, "B": rank}
    assert {frozenset(parts) for parts in held.values()} == {frozenset("AB")}


def test_a_slot_pays_for_what_sits_in_it_now(made: Made) -> None:
    runner = made.runner([RANK_40])
    runner.place(0, runner.stage(made.adapters[RANK_1]))
    held = parts_held(runner, [(0, 0)])[0]
    assert held == {f"encoder.layer.2.attention.self.{kind}": {"A": 8, "B": 8} for kind in ("query", "value")}


@pytest.mark.parametrize(("limit", "together"), [(2**25, [{0, 1, 2}] * 3), (0, [{0}, {1}, {2}])])
def test_updates_of_all_layers_are_fetched_at_once_unless_they_are_too_large(
    made: Made,
    limit: int,
    together: list[set[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch_updates, "_AT_ONCE", limit)
    runner = made.runner([RANK_8])
    queries = [runner._trunk._sites[f"encoder.layer.{i}.attention.self.query"] for i in range(3)]
    seen: list[set[int]] = []
    for query in queries:
        query.register_forward_hook(lambda *_: seen.append({i for i, site in enumerate(queries) if site.parts}))
    runner.run(batch_of([(0, 0), (0, 1)]))
    assert seen == together


def test_ranks_and_shapes_are_rounded_up_to_few_where_graphs_are_kept(made: Made) -> None:
    runner = made.runner(range(COUNT), graphs=2)
    held, states = parts_held(runner, [(RANK_40, 0), (BARE, 1), (RANK_8, 2)])
    assert held["encoder.layer.1.output.dense"] == {"A": 64, "B": 64}
    assert states == [4] * 4


@pytest.mark.parametrize(
    ("slots", "states"),
    [
        ([HEAD_ONLY, TAGGER_ONLY, BARE], [1, 1, 1, 1]),
        ([HEAD_ONLY, BARE, POOLER], [1, 1, 1, 2]),
        ([RANK_1, MIDDLE, HEAD_ONLY, BARE], [1, 2, 3, 3]),
        ([RANK_8, RANK_40], [2, 2, 2, 2]),
    ],
)
def test_rows_of_one_input_share_what_their_adapters_leave_as_it_is(
    plain: TorchRunner, slots: list[int], states: list[int]
) -> None:
    assert parts_held(plain, [(slot, 0) for slot in slots])[1] == states


@given(tokens=st.integers(1, 512), most=st.integers(64, 512))
def test_lengths_are_rounded_up_by_little(tokens: int, most: int) -> None:
    tokens = min(tokens, most)
    assert tokens <= token_size(tokens, most) <= min(most, max(tokens + 15, 1.25 * tokens))


def doubled(tensor: torch.Tensor) -> tuple[torch.Tensor]:
    return (2 * tensor,)


def test_a_key_that_comes_again_is_captured_and_the_least_recent_leaves() -> None:
    graphs = Graphs(torch.device("cpu"), 2)
    kept = []
    for key in ("a", "b", "a", "b", "c", "a", "c", "b"):
        assert graphs.run(key, doubled, torch.tensor([len(kept)]))[0].item() == 2 * len(kept)
        kept.append("".join(str(k) for k in graphs._captured))
    assert kept == ["", "", "a", "ab", "ab", "ba", "ac", "ac"]


def test_what_cannot_be_captured_runs_as_it_is_and_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: Any) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    graphs = Graphs(torch.device("cpu"), 2)
    graphs._pool = (0, 0)
    monkeypatch.setattr(torch_graphs._Captured, "_record", refused)
    assert [graphs.run("a", doubled, torch.tensor(i))[0].item() for i in range(4)] == [0, 2, 4, 6]
    assert [record.getMessage() for record in caplog.records] == [
        "runs without a CUDA graph: a: operation not permitted when stream is capturing"
    ]
