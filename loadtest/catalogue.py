"""The catalogue: every benchmark by name, with a sentence, its target, its command and its function.

The module of a benchmark is imported when the benchmark runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from importlib import import_module
from typing import Any

from rootstock.loadtest import targets
from rootstock.loadtest.fixtures.setup import BenchmarkSetup
from rootstock.loadtest.measure.outcome import Outcome


class Command(Enum):
    """The command that runs a benchmark."""

    ENGINE = "rootstock bench engine --rows {name}"
    HTTP = "rootstock bench http --rows {name}"
    GENERATION = "rootstock bench generation --rows {name}"
    SCENARIO = "rootstock bench http --scenario {name}"
    SWEEP = "rootstock bench engine --sweep"
    CLUSTER = "rootstock bench cluster"
    CLUSTER_COSTS = "rootstock bench cluster --measure"
    CLUSTER_VALIDATION = "rootstock bench cluster --validate"
    GPU = "python -m rootstock.loadtest.engine.gpu"


@dataclass(frozen=True)
class Benchmark:
    """A benchmark. `target` is empty for a benchmark whose figures are printed and not judged.

    `function` is `module:name` inside loadtest.
    """

    name: str
    command: Command
    sentence: str
    target: str
    function: str

    @property
    def command_line(self) -> str:
        """Return the command line that runs this benchmark alone."""
        return self.command.value.format(name=self.name)

    def load(self) -> Any:
        """Import the benchmark's module and return its function."""
        module, _, name = self.function.partition(":")
        return getattr(import_module(f"rootstock.loadtest.{module}"), name)

    def measure(self, setup: BenchmarkSetup) -> Outcome:
        """Run the benchmark and return its outcome."""
        result = self.load()(setup)
        return result if isinstance(result, Outcome) else Outcome(result)


_ENGINE = (
    Benchmark(
        "plain-export",
        Command.ENGINE,
        "throughput with no adapter in use ÷ that of a plain ONNX export of the foundation",
        f"≥ {targets.PLAIN_EXPORT:g}",
        "engine.adapters_vs_bare:plain_export",
    ),
    Benchmark(
        "adapters-vs-bare",
        Command.ENGINE,
        "throughput of 32 adapters in one batch ÷ that of the foundation alone",
        "; ".join(f"≥ {t:g} at {tokens} tokens" for tokens, t in targets.ADAPTERS_VS_BARE.items()),
        "engine.adapters_vs_bare:adapters_vs_bare",
    ),
    Benchmark(
        "adapters-vs-head",
        Command.ENGINE,
        "throughput of 32 adapters in one batch ÷ that of one head on the foundation",
        "",
        "engine.adapters_vs_bare:adapters_vs_head",
    ),
    Benchmark(
        "compositions",
        Command.ENGINE,
        "throughput of 32 compositions of two rank-8 adapters in one batch ÷ that of 32 adapters of rank 16",
        f"≥ {targets.COMPOSITIONS:g}",
        "engine.compositions:compositions",
    ),
    Benchmark(
        "vs-peft",
        Command.ENGINE,
        "speed on 32 adapters ÷ PEFT's mixed batch, one set_adapter a request, and sentence-transformers",
        f"≥ {targets.VS_PEFT:g} × PEFT's mixed batch",
        "engine.vs_peft:vs_peft",
    ),
    Benchmark(
        "fan-out",
        Command.ENGINE,
        "speed of one call for 20 heads on one text ÷ 20 calls",
        f"≥ {targets.FAN_OUT:g}",
        "engine.fan_out:fan_out",
    ),
    Benchmark(
        "shared-layers",
        Command.ENGINE,
        "speed of 20 adapters of the top third of the layers on one text: one call ÷ 20 calls; shared ÷ unshared",
        f"≥ {targets.TOP_LAYERS_FAN_OUT:g}; ≥ {targets.TOP_LAYERS_SHARED:g}",
        "engine.fan_out:shared_layers",
    ),
    Benchmark(
        "images-vs-bare",
        Command.ENGINE,
        "throughput of 32 images under 32 adapters in one batch ÷ that of the foundation `vision` alone",
        f"≥ {targets.IMAGES_VS_BARE:g}",
        "engine.images:images_vs_bare",
    ),
    Benchmark(
        "images-vs-peft",
        Command.ENGINE,
        "speed on 32 images under 32 adapters ÷ PEFT's mixed batch, and one set_adapter a request",
        f"≥ {targets.IMAGES_VS_PEFT:g} × PEFT's mixed batch",
        "engine.images:images_vs_peft",
    ),
    Benchmark(
        "images-fan-out",
        Command.ENGINE,
        "speed of one call for 20 heads on one image ÷ 20 calls",
        f"≥ {targets.IMAGES_FAN_OUT:g}",
        "engine.images:images_fan_out",
    ),
    Benchmark(
        "cold-start",
        Command.ENGINE,
        "a cold adapter's first answer − a warm answer: from disk; from host memory",
        f"≤ {targets.COLD_DISK_MS:g} ms; ≤ {targets.COLD_MEMORY_MS:g} ms",
        "engine.cold_start:cold_start",
    ),
    Benchmark(
        "repeated-loads",
        Command.ENGINE,
        "time of the last of 1,000 loads from disk ÷ the first ones",
        "",
        "engine.cold_start:repeated_loads",
    ),
    Benchmark(
        "registry-scale",
        Command.ENGINE,
        "10,000 registered adapters: memory − an empty server's; p99 of a registry look-up (needs 4 GB of disk)",
        f"≤ {targets.REGISTRY_MB:.0f} MB; ≤ {targets.LOOK_UP_MS:g} ms",
        "engine.registry_scale:registry_scale",
    ),
    Benchmark(
        "startup",
        Command.ENGINE,
        "time until ready and memory at that time: under uvicorn; under BentoML − an empty BentoML service",
        f"≤ {targets.START_S:g} s, ≤ {targets.START_MB:g} MB each",
        "engine.startup:startup",
    ),
)
_HTTP = (
    Benchmark(
        "vs-set-adapter",
        Command.HTTP,
        "requests/s of 32 clients on 32 adapters ÷ PEFT behind BentoML with one set_adapter a request",
        f"≥ {targets.VS_SET_ADAPTER:g}",
        "http.peer_servers:vs_set_adapter",
    ),
    Benchmark(
        "throughput",
        Command.HTTP,
        "requests/s of 32 clients over HTTP ÷ the engine in process: under BentoML; under uvicorn",
        f"≥ {targets.THROUGHPUT['bentoml']:g}; ≥ {targets.THROUGHPUT['uvicorn']:g}",
        "http.throughput:throughput",
    ),
    Benchmark(
        "vs-infinity",
        Command.HTTP,
        "32 adapters ÷ Infinity on the bare foundation: requests/s of 32 clients, fp32 and int8; p50 of one",
        f"≥ {targets.VS_INFINITY:g}, ≥ {targets.VS_INFINITY_INT8:g}; ≤ {targets.VS_INFINITY_P50:g}",
        "http.peer_servers:vs_infinity",
    ),
    Benchmark(
        "request-cost",
        Command.HTTP,
        "CPU time of a single-input request − an empty route's: under BentoML; under uvicorn",
        f"≤ {targets.REQUEST_CPU_MS:g} ms each",
        "http.request_cost:request_cost",
    ),
    Benchmark(
        "processes",
        Command.HTTP,
        "requests/s of a server in one process for each core ÷ in one process; the same without a model's cost",
        "",
        "http.server_processes:processes",
    ),
    Benchmark(
        "modalities",
        Command.HTTP,
        "texts and images on one server, each beside the other ÷ alone: answers/s; p99; wrong answers",
        f"≥ {targets.MODALITY_SHARE:g}; {targets.FAULTS:g} wrong answers",
        "http.modalities:modalities",
    ),
)
_GENERATION = (
    Benchmark(
        "generation-adapters",
        Command.GENERATION,
        "throughput of 16 sequences on 16 adapters ÷ without adapters: rank 16 on all linear layers; 8 on q, v",
        "; ".join(f"≥ {target:g}" for target in targets.GENERATION_VS_NONE.values()),
        "generation.generation_adapters:generation_adapters",
    ),
    Benchmark(
        "generation-vs-set-adapter",
        Command.GENERATION,
        "speed of 16 requests on 16 adapters ÷ one transformers generate a request with set_adapter",
        f"≥ {targets.VS_SET_ADAPTER_GENERATION:g}",
        "generation.generation_adapters:generation_vs_set_adapter",
    ),
    Benchmark(
        "generation-vs-vllm",
        Command.GENERATION,
        "throughput of 16 sequences on 16 rank-16 adapters ÷ vLLM on the CPU, fp32, both over HTTP",
        f"≥ {targets.VS_VLLM:g}",
        "generation.generation_peers:generation_vs_vllm",
    ),
    Benchmark(
        "generation-vs-llama-cpp",
        Command.GENERATION,
        "throughput with rank-16 adapters ÷ llama.cpp in Q4_1 without, both over HTTP: 16 sequences; one",
        "; ".join(f"≥ {target:g}" for target in targets.VS_LLAMA_CPP.values()),
        "generation.generation_peers:generation_vs_llama_cpp",
    ),
)
_SCENARIOS = (
    Benchmark(
        "steady",
        Command.SCENARIO,
        "all kinds of request, in a closed loop and at a constant rate: faults",
        f"{targets.FAULTS:g} faults",
        "scenarios.steady:steady",
    ),
    Benchmark(
        "ramp",
        Command.SCENARIO,
        "load past the knee: goodput at 3× ÷ 1×; p99 of accepted requests; faults",
        f"≥ {targets.RAMP_GOODPUT:g}; ≤ {targets.RAMP_QUEUES:g} × a full queue's time; {targets.FAULTS:g} faults",
        "scenarios.ramp:ramp",
    ),
    Benchmark(
        "many",
        Command.SCENARIO,
        "10 to 10,000 adapters under Zipf traffic: memory − an empty server's; faults",
        f"≤ {targets.REGISTRY_MB:.0f} MB; {targets.FAULTS:g} faults",
        "scenarios.many:many",
    ),
    Benchmark(
        "churn",
        Command.SCENARIO,
        f"a version published or activated each second: p99 − {targets.CHURN_RATIO:g} × p99 without; faults",
        f"≤ {targets.CHURN_MS:g} ms; {targets.FAULTS:g} faults",
        "scenarios.churn:churn",
    ),
    Benchmark(
        "cold",
        Command.SCENARIO,
        "each request under a cold adapter: p50 over HTTP − a warm adapter's; faults",
        f"{targets.FAULTS:g} faults",
        "scenarios.cold:cold",
    ),
    Benchmark(
        "noisy-neighbour",
        Command.SCENARIO,
        "p99 of the other adapters' clients while one adapter floods ÷ without; faults",
        f"≤ {targets.NEIGHBOUR_P99:g}; {targets.FAULTS:g} faults",
        "scenarios.noisy_neighbour:noisy_neighbour",
    ),
    Benchmark(
        "chat",
        Command.SCENARIO,
        "streamed chats of 1, 4, 16 clients and at a constant rate: first token, token time, tokens/s; faults",
        f"{targets.FAULTS:g} faults",
        "scenarios.chat:chat",
    ),
    Benchmark(
        "soak",
        Command.SCENARIO,
        "30 min of mixed traffic: slope of resident memory; faults",
        f"≤ {targets.SOAK_MB_HOUR:g} MB/h; {targets.FAULTS:g} faults",
        "scenarios.soak:soak",
    ),
)
_OTHERS = (
    Benchmark(
        "sweep",
        Command.SWEEP,
        "the runner's speed ÷ the foundation alone, by adapters, popularity, rank, rows and tokens",
        "",
        "engine.sweep:sweep",
    ),
    Benchmark(
        "cluster-policies",
        Command.CLUSTER,
        "simulated replicas by routing policy: throughput, p50, p99, cold loads, failed requests",
        "",
        "cluster.study:cluster_policies",
    ),
    Benchmark(
        "cluster-costs",
        Command.CLUSTER_COSTS,
        "the costs of a replica that the simulation runs on: passes, requests, loads",
        "",
        "cluster.calibration:cluster_costs",
    ),
    Benchmark(
        "cluster-validation",
        Command.CLUSTER_VALIDATION,
        "the simulation of two and four replicas against real ones: error; loads with affinity ÷ random routing",
        f"≤ {targets.SIMULATION_ERROR:g} %; ≤ {targets.AFFINITY_LOADS:g}",
        "cluster.validation:cluster_validation",
    ),
    Benchmark(
        "torch-runner",
        Command.GPU,
        "the torch runner on a GPU or a CPU: 32 adapters ÷ the foundation alone, PEFT, and no CUDA graphs",
        "",
        "engine.gpu:main",
    ),
)

CATALOGUE: dict[str, Benchmark] = {
    one.name: one for one in (*_ENGINE, *_HTTP, *_GENERATION, *_SCENARIOS, *_OTHERS)
}


def names_of(command: Command) -> tuple[str, ...]:
    """Return the names of a command's benchmarks, in the catalogue's order."""
    return tuple(name for name, benchmark in CATALOGUE.items() if benchmark.command is command)


def measure(names: Sequence[str], setup: BenchmarkSetup) -> Outcome:
    """Run benchmarks one after the other and return all their rows."""
    return Outcome([row for name in names for row in CATALOGUE[name].measure(setup).rows])
