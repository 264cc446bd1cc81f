"""Generated text under many adapters, against none and against one `set_adapter` for each request."""

from __future__ import annotations

from collections.abc import Sequence

from rootstock.loadtest import targets
from rootstock.loadtest.fixtures.random_lora import LoraKind
from rootstock.loadtest.fixtures.setup import BenchmarkSetup
from rootstock.loadtest.generation.generation_bench import (
    PROMPT_TOKENS,
    SEQUENCES,
    bare_names,
    open_generation_bench,
)
from rootstock.loadtest.measure.agreement import Disagreement
from rootstock.loadtest.measure.pairs import interleave
from rootstock.loadtest.measure.row import BenchmarkRow

_KINDS = (LoraKind(16, None), LoraKind(8, ("q_proj", "v_proj")))
_TOKENS, _PEER_TOKENS = 48, 16
# One run of the peer takes about half a minute.
_PEER_PAIRS = 6
_EACH = f"{SEQUENCES} sequences at once, prompts of {PROMPT_TOKENS} tokens"


def generation_adapters(setup: BenchmarkSetup) -> list[BenchmarkRow]:
    """Measure the seconds of 16 sequences without an adapter ÷ on 16 distinct ones, by kind of adapter."""
    return [_against_none(setup, kind) for kind in _KINDS]


def generation_vs_set_adapter(setup: BenchmarkSetup) -> list[BenchmarkRow]:
    """Measure the seconds of one `generate` a request, with `set_adapter`, ÷ ours for all requests."""
    from rootstock.loadtest.peers.set_adapter_generation import SetAdapterGeneration

    kind = _KINDS[0]
    setup.say(f"generation-vs-set-adapter: {kind.text}")
    with open_generation_bench(kind, setup.threads) as bench:
        names = list(bench.adapters)
        peer = SetAdapterGeneration(bench.files.folder, bench.adapters, kind.rank)
        prompts = bench.new_prompts()
        same = _same(bench.generate(names, _PEER_TOKENS, prompts), peer.generate(names, prompts, _PEER_TOKENS))
        pairs = interleave(
            lambda: peer.generate(names, bench.new_prompts(), _PEER_TOKENS),
            lambda: bench.generate(names, _PEER_TOKENS),
            min(setup.pairs, _PEER_PAIRS),
            runs=1,
        )
    row = BenchmarkRow(
        benchmark="generation-vs-set-adapter",
        title=f"{SEQUENCES} requests on {SEQUENCES} adapters, {kind.text} ÷ one generate a request (speed)",
        top=f"transformers' generate after PEFT's set_adapter, one request after the other, {setup.threads} "
        f"threads, fp32, prompts of {PROMPT_TOKENS} tokens, {_PEER_TOKENS} greedy tokens",
        bottom=f"GenerationEngine, {_EACH}, {_PEER_TOKENS} greedy tokens, fp32",
        unit="seconds",
        pairs=pairs,
        target=targets.VS_SET_ADAPTER_GENERATION,
        notes=[f"{same} of {SEQUENCES} answers have the same tokens; the others part at a near tie"],
    )
    return [row]


def _against_none(setup: BenchmarkSetup, kind: LoraKind) -> BenchmarkRow:
    setup.say(f"generation-adapters: {kind.text}")
    with open_generation_bench(kind, setup.threads) as bench:
        names, bare = list(bench.adapters), bare_names()
        bench.check_alone(names, 8)
        pairs = interleave(
            lambda: bench.generate(bare, _TOKENS), lambda: bench.generate(names, _TOKENS), setup.pairs, runs=1
        )
    tokens = SEQUENCES * _TOKENS
    return BenchmarkRow(
        benchmark="generation-adapters",
        title=f"{SEQUENCES} sequences on {SEQUENCES} adapters, {kind.text} ÷ without adapters (throughput)",
        top=f"GenerationEngine, {_EACH}, no adapter, {_TOKENS} greedy tokens, fp32, {setup.threads} threads",
        bottom="the same on 16 distinct adapters",
        unit="seconds",
        pairs=pairs,
        target=targets.GENERATION_VS_NONE[kind.rank],
        notes=["a sequence has the same tokens among the others as alone (first 8 tokens of each)"],
        extra={"tokens": tokens},
    )


def _same(ours: Sequence[Sequence[int]], theirs: Sequence[Sequence[int]]) -> int:
    """Return how many answers are equal. Raise Disagreement if fewer than three quarters are."""
    same = sum(list(one) == list(other) for one, other in zip(ours, theirs, strict=True))
    if same < 0.75 * len(ours):
        raise Disagreement(f"{same} of {len(ours)} answers have the tokens of transformers' generate")
    return same
