"""Generated text of our server ÷ that of vLLM and llama.cpp, each behind its OpenAI routes."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np

from rootstock.adapters.client.client import Client
from rootstock.adapters.foundation.architecture import describe
from rootstock.adapters.foundation.location import locate
from rootstock.adapters.foundation.named import source_file
from rootstock.loadtest import targets
from rootstock.loadtest.fixtures.lora_folder import write_lora_folder
from rootstock.loadtest.fixtures.random_lora import LoraKind, random_adapters
from rootstock.loadtest.fixtures.server import ServerProcess, rootstock_server
from rootstock.loadtest.fixtures.setup import BenchmarkSetup
from rootstock.loadtest.generation.generation_bench import PROMPT_TOKENS, SEQUENCES
from rootstock.loadtest.measure.agreement import Disagreement
from rootstock.loadtest.measure.pairs import interleave
from rootstock.loadtest.measure.row import BenchmarkRow, NotRun
from rootstock.loadtest.peers import llama_cpp, vllm
from rootstock.loadtest.peers.peer_environment import PeerMissing

_KIND = LoraKind(16, None)
_TOKENS = 48
_FOUNDATION = "foundation"
_CONTEXT = 512
# The fastest precision that the golden sets of the demo adapters allow.
_BEST = "int4"
_EACH = f"prompts of {PROMPT_TOKENS} random tokens, {_TOKENS} greedy tokens, /v1/completions without a stream"


@dataclass(frozen=True)
class GenerationSide:
    """A server with the names that its requests ask for, one for each sequence."""

    server: ServerProcess
    names: Sequence[str]
    vocabulary: int
    draw: np.random.Generator

    def run(self) -> list[str]:
        """Ask for all sequences at once, with new random prompts, and return the texts."""
        prompts = self.draw.integers(1000, self.vocabulary - 1000, (len(self.names), PROMPT_TOKENS)).tolist()
        return asyncio.run(_completions(self.server.url, self.names, prompts))


def generation_vs_vllm(setup: BenchmarkSetup) -> list[BenchmarkRow | NotRun]:
    """Measure vLLM's seconds ÷ ours for 16 sequences on 16 distinct adapters, in fp32."""
    name, title = "generation-vs-vllm", f"{SEQUENCES} sequences on {SEQUENCES} adapters, {_KIND.text} ÷ vLLM 0.32"
    try:
        program = vllm.VLLM.program(vllm.PROGRAM, setup.say)
    except PeerMissing as error:
        return [NotRun(name, title, str(error))]
    setup.say(f"{name}: starting both servers")
    with _our_server(setup, "fp32") as ours, ExitStack() as stack:
        peer = stack.enter_context(
            vllm.vllm_server(program, ours.folder, ours.adapters, _KIND.rank, setup.threads)
        )
        names = list(ours.adapters)
        theirs, our_side = ours.side(peer, names), ours.side(ours.process, names)
        same = _same_texts(theirs, our_side, names)
        pairs = interleave(theirs.run, our_side.run, setup.pairs, runs=1)
    return [
        BenchmarkRow(
            benchmark=name,
            title=f"{title} (throughput)",
            top=f"vLLM 0.32 on the CPU, fp32, eager, {setup.threads} threads; {_EACH}",
            bottom=f"rootstock serve, fp32, {setup.threads} threads; the same",
            unit="seconds",
            pairs=pairs,
            target=targets.VS_VLLM,
            notes=[same],
            extra={"tokens": SEQUENCES * _TOKENS},
        )
    ]


def generation_vs_llama_cpp(setup: BenchmarkSetup) -> list[BenchmarkRow | NotRun]:
    """Measure llama.cpp's seconds without adapters ÷ ours with them: 16 sequences on 16 adapters; one on one."""
    name, title = "generation-vs-llama-cpp", "with adapters ÷ llama.cpp in Q4_1 without"
    try:
        program = llama_cpp.llama_cpp_program(setup.say)
    except PeerMissing as error:
        return [NotRun(name, title, str(error))]
    rows: list[BenchmarkRow | NotRun] = []
    setup.say(f"{name}: starting both servers")
    with _our_server(setup, _BEST) as ours:
        for count, target in targets.VS_LLAMA_CPP.items():
            with llama_cpp.llama_cpp_server(program, source_file("chat"), count, _CONTEXT, setup.threads) as peer:
                theirs = ours.side(peer, [_FOUNDATION] * count)
                pairs = interleave(
                    theirs.run, ours.side(ours.process, list(ours.adapters)[:count]).run, setup.pairs, runs=1
                )
            rows.append(
                BenchmarkRow(
                    benchmark=name,
                    title=f"{count} sequences at once, {_KIND.text}, {title} (throughput)",
                    top=f"llama.cpp, Q4_1, no adapter, {count} in parallel, {setup.threads} threads; {_EACH}",
                    bottom=f"rootstock serve, {_BEST}, distinct adapters; the same",
                    unit="seconds",
                    pairs=pairs,
                    target=target,
                    extra={"tokens": count * _TOKENS},
                )
            )
    return rows


@dataclass(frozen=True)
class _OurServer:
    """Our server of the chat foundation with 16 adapters published, and their PEFT folders."""

    process: ServerProcess
    folder: Path
    adapters: Mapping[str, Path]
    vocabulary: int

    def side(self, server: ServerProcess, names: Sequence[str]) -> GenerationSide:
        return GenerationSide(server, names, self.vocabulary, np.random.default_rng(1))


@contextmanager
def _our_server(setup: BenchmarkSetup, precision: str) -> Iterator[_OurServer]:
    folder = locate("chat").folder
    spec = describe(locate(str(folder)))
    settings = {"FOUNDATIONS": str(folder), "GENERATION_PRECISION": precision, "GENERATION_ROWS": str(SEQUENCES)}
    with tempfile.TemporaryDirectory(prefix="rootstock-bench-") as temporary:
        adapters = {}
        for name, adapter in random_adapters(spec, _KIND, SEQUENCES).items():
            adapters[name] = Path(temporary) / name
            write_lora_folder(adapter, spec, adapters[name])
        with rootstock_server("uvicorn", setup.export, setup.threads, str(folder), settings=settings) as process:
            with Client(process.url) as client:
                for name, path in adapters.items():
                    client.push(path, name)
            vocabulary = 0 if spec.causal_lm is None else spec.causal_lm.vocabulary
            yield _OurServer(process, folder, adapters, vocabulary)


async def _completions(url: str, names: Sequence[str], prompts: Sequence[Sequence[int]]) -> list[str]:
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=3600) as client:

        async def one(name: str, prompt: Sequence[int]) -> str:
            body = {
                "model": name,
                "prompt": prompt,
                "max_tokens": _TOKENS,
                "temperature": 0,
                "ignore_eos": True,
            }
            answer = (await client.post("/v1/completions", json=body)).raise_for_status().json()
            if answer["usage"]["completion_tokens"] != _TOKENS:
                raise Disagreement(f"{url}: {answer['usage']['completion_tokens']} tokens instead of {_TOKENS}")
            text: str = answer["choices"][0]["text"]
            return text

        return list(await asyncio.gather(*map(one, names, prompts)))


def _same_texts(theirs: GenerationSide, ours: GenerationSide, names: Sequence[str]) -> str:
    """Compare the texts for the same prompts. Raise Disagreement if fewer than three quarters are equal."""
    same = sum(one == other for one, other in zip(theirs.run(), ours.run(), strict=True))
    if same < 0.75 * len(names):
        raise Disagreement(f"{same} of {len(names)} answers are those of vLLM")
    return f"{same} of {len(names)} answers have the same text; the others part at a near tie"
