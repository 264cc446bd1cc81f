"""The torch runner's answers are PEFT's own for every kind of adapter, in any mix, however often replaced."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rootstock.adapters.foundation.architecture import describe
from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.adapters.spec import Adapter, FoundationSpec, SiteUpdate
from rootstock.service.engine.core.errors import RunnerFault
from rootstock.service.engine.runners.torch import heads as torch_heads
from rootstock.service.engine.runners.torch import pages as torch_pages
from rootstock.service.engine.runners.torch import updates as torch_updates
from rootstock.service.engine.runners.torch.runner import TOLERANCES, TorchRunner
from tests.attacks.forge import WORDS, save_tokenizer
from tests.peft_adapters import close
from tests.reference_graft import grafted
from tests.service.engine.torch_adapters import (
    COUNT,
    HEAD_ONLY,
    INPUTS,
    MIDDLE,
    RANK_8,
    Made,
    adapter_of,
    batch_of,
    check,
    make,
    new_runner,
    noise,
    raw,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module", params=["as they come", "rounded", "layer by layer"])
def runner(request: pytest.FixtureRequest, made: Made) -> Iterator[TorchRunner]:
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "layer by layer":
            patch.setattr(torch_updates, "_AT_ONCE", 0)
        yield made.runner(range(COUNT), graphs=6 if request.param == "rounded" else 0)


def test_all_kinds_of_adapter_answer_in_one_batch_as_peft_does(runner: TorchRunner, made: Made) -> None:
    rows = [(slot, (slot + turn) % len(INPUTS)) for turn in range(2) for slot in range(COUNT)]
    for _ in range(3):
        check(runner, rows, made.expected)


def test_each_adapter_alone_answers_as_peft_does(runner: TorchRunner, made: Made) -> None:
    for slot in range(COUNT):
        check(runner, [(slot, i) for i in range(len(INPUTS))], made.expected)


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.tuples(st.integers(0, COUNT - 1), st.integers(0, 2)), min_size=1, max_size=12))
def test_a_row_s_answer_is_its_own_whatever_shares_its_input(
    rows: list[tuple[int, int]], runner: TorchRunner, made: Made
) -> None:
    check(runner, rows, made.expected)


def test_adapters_answer_differently(made: Made) -> None:
    """Without this, the tests above would pass for a runner that mixes adapters up."""
    flat = [np.concatenate([a.ravel() for a in answers]) for answers in made.expected]
    for i, one in enumerate(flat):
        assert all(one.shape != other.shape or np.abs(one - other).max() > 1e-3 for other in flat[:i])


@pytest.mark.parametrize("graphs", [0, 3])
def test_adapters_come_and_go_without_a_trace(made: Made, graphs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few slots, memory that often grows, graphs that often leave: answers stay right, and no page is lost."""
    monkeypatch.setattr(torch_pages, "_FIRST", 1)
    monkeypatch.setattr(torch_heads, "_FIRST", 1)
    adapters, expected = made.adapters, made.expected
    runner = made.runner([], graphs=graphs)
    draw, sits = random.Random(graphs), dict[int, int]()
    for _ in range(60):
        slot, adapter = draw.randrange(5), draw.randrange(COUNT)
        staged = runner.stage(adapters[adapter])
        runner.stage(adapters[draw.randrange(COUNT)])  # thrown away
        if draw.random() < 0.3:
            runner.clear(slot)
        runner.place(slot, staged)
        sits[slot] = adapter
        rows = [(draw.choice(list(sits)), draw.randrange(3)) for _ in range(draw.choice([1, 2, 2, 4]))]
        for (place, i), output in zip(rows, runner.run(batch_of(rows)), strict=True):
            assert close(output, expected[sits[place]][i]), f"adapter {sits[place]}, input {i}"
    assert len(runner._graphs) == graphs
    for slot in range(5):
        runner.clear(slot)
    for pages in runner._updates.pools.values():
        constants = 1 if pages.store.shape[1] == torch_updates.RANKS else 2
        assert sorted(pages._free) == list(range(constants, len(pages.store)))
    for stack in runner._heads._stacks.values():
        assert sorted(stack._free) == list(range(stack._count))


def test_an_adapter_beyond_the_budget_is_refused_and_harms_no_other(made: Made) -> None:
    adapters, expected = made.adapters, made.expected
    # Six sites of one page for A and one for B, 8 x 32 numbers each, and the page that holds nothing.
    runner = made.runner([], adapter_bytes=13 * 8 * 32 * 4)
    runner.place(0, runner.stage(adapters[RANK_8]))
    with pytest.raises(RunnerFault, match="bytes more on the device and 0 are left"):
        runner.stage(adapters[MIDDLE])
    runner.place(1, runner.stage(adapters[HEAD_ONLY]))
    rows = [(0, 0), (1, 1)]
    for output, want in zip(
        runner.run(batch_of(rows)), (expected[RANK_8][0], expected[HEAD_ONLY][1]), strict=True
    ):
        assert close(output, want)
    runner.clear(0)
    runner.place(0, runner.stage(adapters[MIDDLE]))
    assert close(runner.run(batch_of([(0, 2)]))[0], expected[MIDDLE][2])


def test_bf16_stays_within_its_bound_and_names_the_same_label(made: Made) -> None:
    """A label may change only between scores that the bound cannot tell apart."""
    runner = made.runner(range(COUNT), precision="bf16")
    assert runner.precision == "bf16"
    rows = [(slot, i) for slot in range(COUNT) for i in range(len(INPUTS))]
    for (slot, i), output in zip(rows, runner.run(batch_of(rows)), strict=True):
        want = made.expected[slot][i]
        assert output.dtype == np.float32
        bound = TOLERANCES["bf16"] * (1 + np.abs(want))
        assert (np.abs(output - want) <= bound).all(), f"adapter {slot}, input {i}"
        best, second = np.sort(want, axis=-1)[..., [-1, -2]].T
        clear = best - second > 2 * bound.max(axis=-1)
        assert (clear <= (output.argmax(-1) == want.argmax(-1))).all(), f"adapter {slot}, input {i}"


def test_an_unknown_precision_is_refused(made: Made) -> None:
    with pytest.raises(ValueError, match="'int8'; expected one of: fp32, bf16"):
        TorchRunner(made.files.folder, made.spec, slots=3, device="cpu", precision="int8")


TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
FULL: dict[str, tuple[str, dict[str, Any]]] = {
    "roberta": ("RobertaConfig", {"pad_token_id": 0}),
    "distilbert": ("DistilBertConfig", {"dim": 32, "n_layers": 3, "n_heads": 2, "hidden_dim": 48}),
    "albert": ("AlbertConfig", {"embedding_size": 16}),
    # With 16 states in a batch, its table of positions has as many entries as the batch has states.
    "deberta-v2": (
        "DebertaV2Config",
        {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 8},
    ),
    "modernbert": ("ModernBertConfig", {**TOKENS, "norm_bias": True}),
    # Its last normalisation comes after the layers.
    "gpt2": ("GPT2Config", {"n_embd": 32, "n_layer": 3, "n_head": 2, "n_inner": 48}),
}


@pytest.mark.parametrize("name", FULL)
def test_other_architectures_answer_as_transformers_does_with_rounded_shapes(name: str, tmp_path: Path) -> None:
    import transformers

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 3, "intermediate_size": 48}
    config = getattr(transformers, FULL[name][0])(
        vocab_size=len(WORDS), max_position_embeddings=64, initializer_range=0.2, **{**sizes, **FULL[name][1]}
    )
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path)
    save_tokenizer(tmp_path, WORDS)
    files = FoundationFiles(tmp_path, name, None)
    spec = describe(files)
    tasks = [task for task in ("text-classification", "token-classification") if task in spec.tasks]
    adapters = [full_adapter(spec, task, depth) for depth in (0, 1, 2) for task in tasks]
    models = [grafted(tmp_path, spec, adapter) for adapter in adapters]
    expected = [[raw(model, ids) for ids in INPUTS] for model in models]
    runner = new_runner(files, spec, adapters, graphs=4)
    slots = range(len(adapters))
    for rows in ([(slot, slot % 3) for slot in slots], [(slot, i) for slot in slots for i in range(3)]):
        for _ in range(3):
            check(runner, rows, expected)


def full_adapter(spec: FoundationSpec, task: str, depth: int) -> Adapter:
    """Every part at every module of the task's class, from a layer on."""
    task_class = spec.class_for(task)
    sites = {}
    for seed, module in enumerate([*spec.sites, *spec.norms], start=100 * depth):
        if spec.layer_of(module) < depth:
            continue
        if module in spec.norms:
            nothing, width = np.zeros((0, spec.norms[module]), np.float32), spec.norms[module]
            sites[module] = SiteUpdate(nothing, nothing, shift=0.2 * noise(width, seed=seed))
        elif task_class.prefix + module in task_class.linears:
            (width_in, width_out), rank = spec.sites[module], 1 + seed % 11
            sites[module] = SiteUpdate(
                0.2 * noise(rank, width_in, seed=seed),
                0.2 * noise(rank, width_out, seed=seed + 1),
                1 + 0.2 * noise(width_in, seed=seed + 2),
                1 + 0.2 * noise(width_out, seed=seed + 3),
                0.2 * noise(width_out, seed=seed + 4),
            )
    head = {n: noise(*(3 if d is None else d for d in shape), seed=7) for n, shape in task_class.head.items()}
    return adapter_of(spec, task, sites, head)
