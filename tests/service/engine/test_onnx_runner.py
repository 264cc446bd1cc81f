"""The ONNX runner shares work between rows without changing any row's answer."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootstock.adapters.spec import Adapter, AdapterWeights, FoundationSpec, HeadSpec, Preprocessing, SiteUpdate
from rootstock.service.engine.encode.modalities.text import TextSample, Tokenizer, pad
from rootstock.service.engine.runners.onnx.runner import OnnxRunner
from rootstock.service.engine.runners.onnx.sessions import Sessions
from rootstock.service.engine.runners.onnx.trunk_cache import TrunkCache, TrunkOutput

TEXTS = ["short", "a somewhat longer text, of more words than the others have", "third of three"]
LINEAR = (
    HeadSpec("linear", pooling="mean"),
    HeadSpec("linear", pooling="cls"),
    HeadSpec("linear", pooling="pooler"),
    HeadSpec("linear", pooling="last"),
)
CLASSIFIER = HeadSpec("hf", "BertForSequenceClassification")
TAGGER = HeadSpec("hf", "BertForTokenClassification")


def noise(*shape: int, seed: int, around: float = 0.0, width: float = 0.05) -> np.ndarray:
    return np.asarray(around + width * np.random.default_rng(seed).standard_normal(shape), np.float32)


def make_adapter(
    spec: FoundationSpec, seed: int, modules: Sequence[str], head: HeadSpec, full: bool = False
) -> Adapter:
    """An adapter that changes these modules; `full`: by everything that an update may hold."""
    sites = {}
    for i, name in enumerate(sorted(modules), start=100 * seed):
        if name in spec.norms:
            width = spec.norms[name]
            sites[name] = SiteUpdate(np.zeros((0, width), np.float32), np.zeros((0, width), np.float32),
                                     shift=noise(width, seed=i))  # fmt: skip
            continue
        width_in, width_out = spec.sites[name]
        rank = 2 + seed % 4
        sites[name] = SiteUpdate(
            noise(rank, width_in, seed=i),
            noise(rank, width_out, seed=i + 1),
            input_scale=noise(width_in, seed=i + 2, around=1.0) if full else None,
            output_scale=noise(width_out, seed=i + 3, around=1.0) if full else None,
            shift=noise(width_out, seed=i + 4) if full else None,
        )
    labels = ("a", "b", "c")
    tensors = {}
    if head.kind == "hf":
        tensors = {"classifier.weight": noise(3, 384, seed=seed), "classifier.bias": noise(3, seed=seed + 1)}
    return Adapter(
        f"sha256:{seed}", "any", None, labels, head, Preprocessing(256), AdapterWeights(sites, tensors)
    )


def everything(spec: FoundationSpec) -> list[Adapter]:
    """Adapters that begin at different layers, of both graphs, each kind of head."""

    def of(*layers: int, among: tuple[str, ...] = ("query", "value")) -> list[str]:
        return [n for n in spec.sites if spec.layer_of(n) in layers and n.endswith(among)]

    whole = [*spec.sites, *spec.norms]
    return [
        make_adapter(spec, 1, (), CLASSIFIER),
        make_adapter(spec, 2, (), TAGGER),
        make_adapter(spec, 3, (), LINEAR[0]),
        make_adapter(spec, 4, of(4, 5), CLASSIFIER),
        make_adapter(spec, 5, of(4, 5), TAGGER),
        make_adapter(spec, 6, of(5), LINEAR[1]),
        make_adapter(spec, 7, ["pooler.dense"], CLASSIFIER),
        make_adapter(spec, 8, of(0, 3), LINEAR[2]),
        make_adapter(spec, 9, of(2, among=("dense",)), TAGGER),
        make_adapter(spec, 10, of(4, 5), LINEAR[0], full=True),
        make_adapter(spec, 11, whole, CLASSIFIER, full=True),
        make_adapter(spec, 12, (), LINEAR[3]),
        make_adapter(spec, 13, of(5), LINEAR[3]),
    ]


@pytest.fixture(scope="module")
def encoded(export_folder: Path) -> list[TextSample]:
    tokenizer = Tokenizer(export_folder / "tokenizer.json")
    return [tokenizer.encode(text, Preprocessing(256), truncate=False) for text in TEXTS]


def new_runner(export_folder: Path, spec: FoundationSpec, cache_bytes: int = 0) -> OnnxRunner:
    runner = OnnxRunner(export_folder, slots=16, threads=2, cache_bytes=cache_bytes)
    for slot, adapter in enumerate(everything(spec)):
        runner.place(slot, runner.stage(adapter))
    return runner


@pytest.fixture(scope="module")
def runner(export_folder: Path, spec: FoundationSpec) -> OnnxRunner:
    return new_runner(export_folder, spec)


@pytest.fixture(scope="module")
def caching(export_folder: Path, spec: FoundationSpec) -> OnnxRunner:
    return new_runner(export_folder, spec, cache_bytes=2**20)


@pytest.fixture(scope="module")
def alone(runner: OnnxRunner, encoded: list[TextSample]) -> dict[tuple[int, int], np.ndarray]:
    """The answer of each adapter to each text in a batch of one row."""
    return {(s, t): runner.run(pad([encoded[t]], [s], 0))[0] for s in range(11) for t in range(len(TEXTS))}


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(st.integers(0, 10), st.integers(0, 2)), min_size=2, max_size=14))
def test_a_row_s_answer_is_its_own_whatever_shares_its_input(
    rows: list[tuple[int, int]],
    runner: OnnxRunner,
    encoded: list[TextSample],
    alone: dict[tuple[int, int], np.ndarray],
) -> None:
    outputs = runner.run(pad([encoded[t] for _, t in rows], [s for s, _ in rows], 0))
    for row, output in zip(rows, outputs, strict=True):
        assert output.shape == alone[row].shape
        np.testing.assert_allclose(output, alone[row], atol=2e-5, rtol=2e-5)


def test_adapters_answer_differently(alone: dict[tuple[int, int], np.ndarray]) -> None:
    """Without this, the test above would pass for a runner that ignores adapters."""
    for text in range(len(TEXTS)):
        answers = [alone[slot, text] for slot in (0, 3, 6, 10)]
        assert all(np.abs(a - b).max() > 1e-3 for i, a in enumerate(answers) for b in answers[:i])


def states_computed(runner: OnnxRunner, batch_rows: list[TextSample], slots: list[int]) -> list[int]:
    """How many states each layer computes for a batch: the rows that the trunk graph is fed, layer by layer."""
    batch = pad(batch_rows, slots, 0)
    work = runner._work(batch, {slot: runner._placed[slot] for slot in slots})
    if work.plan is None:
        return [len(work.inputs)] * runner.spec.layers
    return [len(level) for level in work.plan.levels[:-1]]


def test_heads_on_one_input_cost_one_pass(runner: OnnxRunner, encoded: list[TextSample]) -> None:
    assert states_computed(runner, [encoded[0]] * 4, [0, 1, 2, 6]) == [1] * 6


def test_adapters_of_the_top_layers_share_those_below(runner: OnnxRunner, encoded: list[TextSample]) -> None:
    assert states_computed(runner, [encoded[0]] * 3, [3, 4, 0]) == [1, 1, 1, 1, 3, 3]


def test_different_inputs_share_nothing(runner: OnnxRunner, encoded: list[TextSample]) -> None:
    assert states_computed(runner, encoded, [3, 4, 0]) == [3] * 6


def test_a_batch_of_classifiers_computes_the_last_layer_for_one_token(
    runner: OnnxRunner, encoded: list[TextSample], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = []
    opened = runner._sessions.trunk

    class Watched:
        def __init__(self, name: str) -> None:
            self.session = opened(name)
            self.get_outputs = self.session.get_outputs

        def run(self, wanted: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
            kept.append(int(feeds["kept"][0]))
            outputs: list[np.ndarray] = self.session.run(wanted, feeds)
            return outputs

    monkeypatch.setattr(runner._sessions, "trunk", Watched)
    longest = max(len(e.ids) for e in encoded)
    runner.run(pad(encoded, [0, 3, 6], 0))
    runner.run(pad(encoded, [0, 3, 4], 0))
    assert kept == [1, longest]


def test_the_graphs_use_fused_attention_with_and_without_sites(export_folder: Path, spec: FoundationSpec) -> None:
    for trunk in Sessions(export_folder, 1).trunks:
        graph = onnx.load(export_folder / f"trunk-{trunk.name}.onnx", load_external_data=False).graph
        kinds = [node.op_type for node in graph.node]
        assert kinds.count("MultiHeadAttention") == spec.layers
        assert "Softmax" not in kinds
        assert sum(node.op_type == "Transpose" for node in graph.node) == len(trunk.sites)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(st.integers(0, 10), st.integers(0, 2)), min_size=1, max_size=8))
def test_kept_trunk_outputs_answer_as_computed_ones_do(
    rows: list[tuple[int, int]],
    caching: OnnxRunner,
    encoded: list[TextSample],
    alone: dict[tuple[int, int], np.ndarray],
) -> None:
    """One runner for all examples: what one example keeps, the next is answered from."""
    outputs = caching.run(pad([encoded[t] for _, t in rows], [s for s, _ in rows], 0))
    for row, output in zip(rows, outputs, strict=True):
        assert output.shape == alone[row].shape
        np.testing.assert_allclose(output, alone[row], atol=2e-5, rtol=2e-5)


def test_an_input_that_comes_again_costs_heads_no_trunk(
    export_folder: Path, spec: FoundationSpec, encoded: list[TextSample], monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = new_runner(export_folder, spec, cache_bytes=2**20)
    runner.run(pad([encoded[0]] * 2, [1, 0], 0))
    monkeypatch.setattr(runner, "_run_trunk", lambda *_: pytest.fail("the trunk ran"))
    runner.run(pad([encoded[0]] * 3, [0, 1, 2], 0))


@pytest.mark.parametrize(("tokens", "width"), [(3, 384), (256, 384), (512, 8)])
def test_what_the_trunk_cache_counts_is_what_python_allocates(tokens: int, width: int) -> None:
    cache = TrunkCache(2**30)
    tracemalloc.start()
    try:
        for i in range(200):
            key = "fingerprint", i.to_bytes(16 * tokens)
            cache.put(key, TrunkOutput({"pooled": np.zeros(width, np.float32)}, True))
        allocated = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert 0.95 * allocated <= cache.nbytes <= 1.4 * allocated


def test_the_trunk_cache_stays_within_its_bytes() -> None:
    cache = TrunkCache(4000)
    for i in range(20):
        cache.put(("fingerprint", bytes([i])), TrunkOutput({"pooled": np.zeros(60, np.float32)}, True))
    assert 4 <= len(cache) < 20
    assert cache.nbytes <= 4000
    assert cache.find(("fingerprint", bytes([19])), frozenset({"pooled"}), True) is not None
    assert cache.find(("fingerprint", bytes([0])), frozenset({"pooled"}), True) is None
    assert cache.find(("another", bytes([19])), frozenset({"pooled"}), True) is None
    cache.put(("fingerprint", b"large"), TrunkOutput({"pooled": np.zeros(2000, np.float32)}, True))
    assert cache.find(("fingerprint", bytes([19])), frozenset({"pooled"}), True) is not None
