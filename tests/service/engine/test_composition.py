"""A composition answers as PEFT's "cat" does, in any batch; it is made once, and leaves with its parts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rootstock.adapters.bundle import Limits, open_bundle
from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.adapters.foundation.weights import FoundationWeights
from rootstock.adapters.spec import Adapter, AdapterWeights, FoundationSpec, Preprocessing, SiteUpdate
from rootstock.adapters.vocabulary.added_token import AddedToken
from rootstock.adapters.vocabulary.words import WordRows
from rootstock.service.engine.core.answer import Answer
from rootstock.service.engine.core.catalog import COMPOSITION, ResolvedReference
from rootstock.service.engine.core.composition import Composition, CompositionPart, compose
from rootstock.service.engine.core.errors import InvalidComposition, Overloaded
from rootstock.service.engine.encode.batch import Encoder
from rootstock.service.engine.encode.engine import EngineLimits
from rootstock.service.engine.encode.modalities.text import Tokenizer, pad
from rootstock.service.engine.runners.onnx.runner import OnnxRunner
from rootstock.service.engine.runners.torch.runner import TorchRunner
from tests.peft_adapters import (
    ALL,
    CLASSES,
    TEXTS,
    PeftAdapter,
    close,
    merged,
    save_adapter,
    tokenizer_of,
)
from tests.peft_composition import peft_composition
from tests.service.engine.fakes import Bench, make_adapter, run

# The parts differ in their ranks, their targets and the scales of their updates.
PARTS: list[dict[str, Any]] = [
    {"r": 4},
    {"r": 8, "target_modules": ALL, "use_rslora": True},
    {"r": 16, "target_modules": ["query", "dense"], "rank_pattern": {"query": 2}, "lora_alpha": 32},
    {"r": 1, "layers_to_transform": [5]},
]
# The index of each part with its weight, and the place of the part that answers.
COMPOSED: list[tuple[list[tuple[int, float]], int]] = [
    ([(0, 0.7), (1, 0.3)], 0),
    ([(1, 0.3), (0, 0.7)], 0),
    ([(0, 1.5), (2, -0.5), (1, 0.25)], 2),
    ([(3, 2.0), (0, 1.0)], 0),
    ([(2, 0.5), (2, 0.25)], 1),
]


@pytest.fixture(scope="module")
def saved(foundation: FoundationFiles, tmp_path_factory: pytest.TempPathFactory) -> list[PeftAdapter]:
    root = tmp_path_factory.mktemp("parts")
    return [
        save_adapter(foundation.folder, root / str(i), "SEQ_CLS", i, **config) for i, config in enumerate(PARTS)
    ]


@pytest.fixture(scope="module")
def opened(saved: list[PeftAdapter], spec: FoundationSpec) -> list[Adapter]:
    return [_open(one, spec) for one in saved]


@pytest.fixture(scope="module", params=["onnx", "torch"])
def runner(
    request: pytest.FixtureRequest, export_folder: Path, foundation: FoundationFiles, spec: FoundationSpec
) -> Iterator[Encoder]:
    if request.param == "onnx":
        yield OnnxRunner(export_folder, slots=64, threads=1)
    else:
        yield TorchRunner(foundation.folder, spec, slots=64)


def _open(saved: PeftAdapter, spec: FoundationSpec, base: FoundationWeights | None = None) -> Adapter:
    return open_bundle(saved.zip(), Limits(), spec).adapter(spec, 64, base)


def _composed(
    adapters: Sequence[Adapter], weights: Sequence[float], head: int = 0, max_rank: int = 64
) -> Adapter:
    parts = tuple(CompositionPart(one.digest, weight) for one, weight in zip(adapters, weights, strict=True))
    return compose(Composition(parts, head), adapters, max_rank)


def _logits(model: Any, folder: Path) -> list[np.ndarray]:
    tokenizer = tokenizer_of(folder)
    with torch.no_grad():
        return [model(**tokenizer(text, return_tensors="pt")).logits[0].numpy() for text in TEXTS]


def _answers(
    runner: Encoder, tokenizer: Tokenizer, adapters: Sequence[Adapter], rows: Sequence[tuple[int, int]]
) -> list[np.ndarray]:
    """The raw outputs of one batch with rows of (adapter, text)."""
    for slot, adapter in enumerate(adapters, 1):
        runner.place(slot, runner.stage(adapter))
    encoded = [tokenizer.encode(TEXTS[text], adapters[i].preprocessing, truncate=False) for i, text in rows]
    return runner.run(pad(encoded, [1 + i for i, _ in rows], tokenizer.pad_id))


@pytest.fixture(scope="module")
def tokenizer(export_folder: Path) -> Tokenizer:
    return Tokenizer(export_folder / "tokenizer.json")


@pytest.fixture(scope="module")
def expected(saved: list[PeftAdapter], foundation: FoundationFiles) -> list[list[np.ndarray]]:
    """PEFT's own outputs for each of COMPOSED and each text."""
    outputs = []
    for parts, head in COMPOSED:
        # PEFT loads a folder twice under two names.
        model = peft_composition(foundation.folder, [(saved[i], weight) for i, weight in parts], head)
        outputs.append(_logits(model, foundation.folder))
    return outputs


def test_compositions_answer_in_one_batch_as_pefts_cat_does(
    runner: Encoder, opened: list[Adapter], expected: list[list[np.ndarray]], tokenizer: Tokenizer
) -> None:
    adapters = [
        _composed([opened[i] for i, _ in parts], [weight for _, weight in parts], head)
        for parts, head in COMPOSED
    ]
    rows = [(i, text) for text in range(len(TEXTS)) for i in range(len(COMPOSED))]
    for (i, text), output in zip(rows, _answers(runner, tokenizer, adapters, rows), strict=True):
        assert close(output, expected[i][text]), (COMPOSED[i], text)


def test_32_rows_of_different_compositions_answer_as_each_alone_does(
    runner: Encoder, opened: list[Adapter], tokenizer: Tokenizer
) -> None:
    pairs = [(a, b) for a in range(4) for b in range(4) if a != b]
    chosen = [(pairs[i % len(pairs)], 0.25 + i / 16) for i in range(32)]
    adapters = [_composed([opened[a], opened[b]], [weight, 1 - weight]) for (a, b), weight in chosen]
    together = _answers(runner, tokenizer, adapters, [(i, 0) for i in range(32)])
    for i, output in enumerate(together):
        assert close(_answers(runner, tokenizer, [adapters[i]], [(0, 0)])[0], output), chosen[i]
    for i, one in enumerate(together):
        assert all(one.shape != other.shape or np.abs(one - other).max() > 1e-4 for other in together[:i])


def test_biases_poolers_and_adalora_add_up_to_the_weighted_sum_of_the_merged_weights(
    foundation: FoundationFiles, spec: FoundationSpec, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    base = FoundationWeights(foundation.folder, spec.model_type)
    whole = {"modules_to_save": ["classifier", "pooler"], "bias": "all"}
    saved = [
        save_adapter(foundation.folder, tmp_path / "0", "SEQ_CLS", 0, **whole),
        save_adapter(foundation.folder, tmp_path / "1", "SEQ_CLS", 1, **whole, r=3),
        save_adapter(foundation.folder, tmp_path / "2", "SEQ_CLS", 2, kind="ADALORA"),
    ]
    weights = [0.6, -0.25, 1.5]
    plain = CLASSES["SEQ_CLS"].from_pretrained(foundation.folder, num_labels=3).eval()
    models = [merged(foundation.folder, one).state_dict() for one in saved]
    state = {}
    for name, tensor in plain.state_dict().items():
        changes = [weight * (model[name] - tensor) for weight, model in zip(weights, models, strict=True)]
        state[name] = models[0][name] if name.startswith("classifier") else tensor + sum(changes)
    plain.load_state_dict(state)
    composed = _composed([_open(one, spec, base) for one in saved], weights)
    assert composed.weights.sites["pooler.dense"].rank == spec.hidden_size, "two whole poolers are one"
    runner = TorchRunner(foundation.folder, spec, slots=4)
    rows = [(0, text) for text in range(len(TEXTS))]
    outputs = _answers(runner, tokenizer, [composed], rows)
    for output, wanted in zip(outputs, _logits(plain, foundation.folder), strict=True):
        assert close(output, wanted)


def test_a_weight_of_zero_takes_no_rank_and_leaves_the_head(opened: list[Adapter]) -> None:
    composed = _composed([opened[1], opened[0]], [0.0, 1.0])
    assert {update.rank for update in composed.weights.sites.values()} == {4}
    assert np.array_equal(composed.weights.head["classifier.weight"], opened[1].weights.head["classifier.weight"])


def test_the_digest_is_made_of_digests_weights_order_and_head() -> None:
    def digest(*parts: tuple[str, float], head: int = 0) -> str:
        return Composition(tuple(CompositionPart(*part) for part in parts), head).digest

    same = digest(("sha256:a", 1.0), ("sha256:b", 0.5))
    assert same == digest(("sha256:a", 1), ("sha256:b", 0.5))
    others = [
        digest(("sha256:b", 0.5), ("sha256:a", 1.0)),
        digest(("sha256:a", 0.5), ("sha256:b", 1.0)),
        digest(("sha256:a", 1.0), ("sha256:c", 0.5)),
        digest(("sha256:a", 1.0), ("sha256:b", 0.5), head=1),
        digest(("sha256:a", 1.0)),
    ]
    assert len({same, *others}) == 6


ONES = np.ones((4, 2), np.float32)
LORA = SiteUpdate(ONES, ONES)
HEAD_ALONE = make_adapter("sha256:head")
WORDS = replace(make_adapter("words"), weights=AdapterWeights({}, {}, WordRows(np.array([3]), ONES[:1])))
TOKENS = replace(make_adapter("tokens"), preprocessing=Preprocessing(64, tokens=(AddedToken(30522, "<order>"),)))


def _changing(digest: str, update: SiteUpdate = LORA) -> Adapter:
    return replace(make_adapter(digest), weights=AdapterWeights({"query": update}, {}))


@pytest.mark.parametrize(
    ("parts", "weights", "message", "param"),
    [
        ([_changing("a"), replace(LORA, output_scale=ONES[0])], [1, 1], "kind DoRA", "adapters[1]"),
        ([_changing("a", SiteUpdate(ONES[:0], ONES[:0], ONES[0])), LORA], [1, 1], "IA3", "adapters[0]"),
        ([_changing("a"), HEAD_ALONE], [1, 1], r"adapters\[1\] is a head alone", "adapters[1]"),
        ([WORDS, LORA], [1, 1], "brings tokens or changes words", "adapters[0]"),
        ([_changing("a"), TOKENS], [1, 1], "brings tokens or changes words", "adapters[1]"),
        ([HEAD_ALONE], [0.5], "no part changes a layer", "adapters"),
        ([_changing("a"), LORA, LORA], [1, 1, 1], "rank 12 together at query; .* most 8;", "adapters"),
        ([_changing("a", SiteUpdate(ONES, ONES * 3e38))], [10], "too large for fp32", "adapters"),
        ([_changing("a", replace(LORA, shift=ONES[0] * 3e38))], [10], "too large for fp32", "adapters"),
    ],
)  # fmt: skip
def test_parts_that_do_not_add_up_are_refused_by_name(
    parts: list[Adapter], weights: list[float], message: str, param: str
) -> None:
    adapters = [one if isinstance(one, Adapter) else _changing("b", one) for one in parts]
    with pytest.raises(InvalidComposition, match=message) as refused:
        _composed(adapters, weights, max_rank=8)
    assert refused.value.param == param


def test_each_field_of_an_adapter_has_a_rule_in_a_composition() -> None:
    """A new field needs a decision in `compose`: it adds up, comes from the part that answers, or is refused."""
    assert {field.name for field in fields(SiteUpdate)} == {"a", "b", "input_scale", "output_scale", "shift"}
    assert {field.name for field in fields(AdapterWeights)} == {"sites", "head", "words", "outputs"}
    assert {field.name for field in fields(Adapter)} == {
        "digest", "task", "problem_type", "labels", "head", "preprocessing", "weights", "prompting",
        "calibration", "tokenizer",
    }  # fmt: skip


def _target(*parts: tuple[str, float]) -> ResolvedReference:
    composition = Composition(tuple(CompositionPart(f"sha256:{name}", weight) for name, weight in parts), 0)
    return ResolvedReference(COMPOSITION, None, composition.digest, composition=composition)


async def _ask(bench: Bench, target: ResolvedReference) -> Answer | Exception:
    (answer,) = await bench.engine.predict_many([COMPOSITION], ["w1"], {}, targets={COMPOSITION: target})
    return answer


def _add(bench: Bench, *names: str) -> None:
    for name in names:
        bench.catalog.add(name, _changing(f"sha256:{name}"))


def test_a_composition_is_made_once_and_shared_by_requests() -> None:
    target = _target(("a", 0.5), ("b", 2.0))

    async def body(bench: Bench) -> None:
        _add(bench, "a", "b")
        answers = await asyncio.gather(*(_ask(bench, target) for _ in range(5)))
        assert {answer.resolved.digest for answer in answers if isinstance(answer, Answer)} == {target.digest}
        assert bench.catalog.loads == {"sha256:a": 1, "sha256:b": 1}
        assert bench.runner.staged[target.digest] == 1
        assert bench.runner.computed(target.digest) == 5
        await _ask(bench, _target(("a", 0.25), ("b", 2.0)))
        assert bench.catalog.loads == {"sha256:a": 1, "sha256:b": 1}, "its parts are still in memory"

    run(body)


def test_a_composition_leaves_the_server_with_any_of_its_parts() -> None:
    target = _target(("a", 0.5), ("b", 2.0))

    async def body(bench: Bench) -> None:
        _add(bench, "a", "b")
        await _ask(bench, target)
        assert bench.engine.residency(target.digest) == "slot"
        await bench.engine.forget("sha256:b")
        assert target.digest not in bench.engine.cache
        assert "sha256:a" in bench.engine.cache
        # The thread that frees the slot does so before the next batch.
        await _ask(bench, _target(("a", 3.0)))
        assert bench.engine.residency(target.digest) == "store"

    run(body)


def test_a_part_is_forgotten_only_once_no_request_computes_its_composition() -> None:
    target = _target(("a", 0.5), ("b", 2.0))

    async def body(bench: Bench) -> None:
        _add(bench, "a", "b")
        bench.runner.gate.clear()
        asked = asyncio.create_task(_ask(bench, target))
        await bench.runner.busy()
        forgetting = asyncio.create_task(bench.engine.forget("sha256:a"))
        await asyncio.sleep(0)
        assert target.digest in bench.engine.cache
        bench.runner.gate.set()
        assert isinstance(await asked, Answer)
        await forgetting
        assert target.digest not in bench.engine.cache

    run(body)


def test_an_invalid_composition_fails_alone_and_leaves_nothing() -> None:
    target = _target(("a", 0.5), ("a", 2.0), ("a", 1.0))

    async def body(bench: Bench) -> None:
        _add(bench, "a")
        for _ in range(2):
            assert isinstance(await _ask(bench, target), InvalidComposition)
        assert not bench.engine.adapters._compositions
        assert isinstance(await _ask(bench, _target(("a", 0.5))), Answer)

    run(body, limits=EngineLimits(max_rank=8))


def test_an_evicted_composition_is_made_again() -> None:
    async def body(bench: Bench) -> None:
        _add(bench, "a", "b")
        for weight in (1.0, 2.0, 1.0):
            assert isinstance(await _ask(bench, _target(("a", weight), ("b", 0.5))), Answer)
        assert len(bench.engine.adapters._compositions) == len(bench.engine.cache) == 1

    run(body, limits=EngineLimits(cache_bytes=1))


def test_a_sweep_over_weights_takes_half_of_the_memory_and_leaves_the_adapters_in_it() -> None:
    """Of a little over 1 MB each, three compositions fit at once in their half of 8 MB."""

    async def body(bench: Bench) -> None:
        wide = np.zeros((1, 125_000), np.float32)
        bench.catalog.add("a", _changing("sha256:a", SiteUpdate(wide, wide.copy())))
        for name in ("x", "y", "z"):
            bench.engine.cache.put(make_adapter(f"sha256:{name}", nbytes=10**6))
        bench.runner.gate.clear()
        sweep = [asyncio.create_task(_ask(bench, _target(("a", 0.5 + i * 1e-9)))) for i in range(32)]
        _, waiting = await asyncio.wait(sweep, return_when=asyncio.FIRST_COMPLETED)
        while len(waiting) > 3:
            _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert bench.engine.cache.nbytes < 8e6
        bench.runner.gate.set()
        outcomes = await asyncio.gather(*sweep)
        assert sum(isinstance(outcome, Answer) for outcome in outcomes) == 3
        assert sum(isinstance(outcome, Overloaded) for outcome in outcomes) == 29
        for i in range(12):
            assert isinstance(await _ask(bench, _target(("a", 1.5 + i))), Answer)
        assert {"sha256:a", "sha256:x", "sha256:y", "sha256:z"} <= set(bench.engine.cache._entries)

    run(body, slots=40, limits=EngineLimits(cache_bytes=8_000_000, max_rank=8))
