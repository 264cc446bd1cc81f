"""The torch runner on one machine, on a GPU if it has one.

Run `python -m rootstock.loadtest.engine.gpu --foundation FOLDER`.

It needs torch, transformers, peft, numpy, safetensors and tokenizers alone, and runs where the server is not
installed. First it compares the answers with PEFT's. Then it times adapters in interleaved pairs against the
foundation alone, PEFT's mixed batch, one `set_adapter` a request, and the same batch without CUDA graphs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import torch

from rootstock.adapters.foundation.architecture import describe
from rootstock.adapters.foundation.location import FoundationError, locate
from rootstock.adapters.spec import FoundationSpec
from rootstock.loadtest.fixtures.workload import RANK, Kind, Workload, make_workload
from rootstock.loadtest.measure.agreement import Disagreement, require_distinct, require_equal, require_same_label
from rootstock.loadtest.measure.machine import cores, describe_machine
from rootstock.loadtest.measure.outcome import BenchmarkRun, Outcome
from rootstock.loadtest.measure.pairs import interleave
from rootstock.loadtest.measure.row import BenchmarkRow
from rootstock.loadtest.peers.peft import PeftPeer
from rootstock.service.engine.core.catalog import foundation_adapter
from rootstock.service.engine.encode.batch import Batch
from rootstock.service.engine.encode.modalities.text import Tokenizer, pad
from rootstock.service.engine.runners.torch.runner import PRECISIONS, TOLERANCES, TorchRunner

# Work of a millisecond is timed over many runs, work of tens or hundreds of milliseconds over a few.
_RUNS, _FEW_RUNS = 10, 2


@dataclass(frozen=True)
class Sizes:
    """The size of a run: adapters, one row each. The first of `tokens` and of `ranks` is the common case."""

    adapters: int
    tokens: tuple[int, ...]
    ranks: tuple[int, ...]
    pairs: int


WHOLE = Sizes(adapters=32, tokens=(32, 16, 128), ranks=(RANK, 16, 64), pairs=30)
QUICK = Sizes(adapters=3, tokens=(8,), ranks=(RANK,), pairs=1)


class GpuBench:
    """A foundation on a device, its adapters by the seeds of fixtures/workload.py, and the peers."""

    def __init__(self, folder: Path, spec: FoundationSpec, device: str, threads: int, sizes: Sizes) -> None:
        self.folder, self.spec, self.device, self.threads, self.sizes = folder, spec, device, threads, sizes
        self.precision = "bf16" if device.startswith("cuda") else "fp32"
        self.tokenizer = Tokenizer(folder / "tokenizer.json")

    def workload(self, rank: int, tokens: int) -> Workload:
        """Return adapters of a rank on query and value, each with a sentence."""
        return make_workload(self.spec, self.tokenizer, self.sizes.adapters, tokens, Kind(rank=rank))

    def runner(self, workload: Workload, precision: str, graphs: bool) -> TorchRunner:
        """Return a runner with the foundation in slot 0 and the workload's adapters in the slots from 1."""
        runner = TorchRunner(
            self.folder,
            self.spec,
            self.sizes.adapters + 1,
            self.threads,
            self.device,
            precision,
            None if graphs else 0,
        )
        for slot, adapter in enumerate([foundation_adapter(self.spec), *workload.adapters(self.spec)]):
            runner.place(slot, runner.stage(adapter))
        return runner

    def batch(self, workload: Workload, slots: Sequence[int]) -> Batch:
        """Return the workload's sentences, each under a slot."""
        return pad(workload.encoded(self.tokenizer, self.spec), slots, self.tokenizer.pad_id)

    def mixed(self, workload: Workload, shift: int = 0) -> Batch:
        """Return each sentence under its adapter, or under the one `shift` places on."""
        count = self.sizes.adapters
        return self.batch(workload, [1 + (i + shift) % count for i in range(count)])

    def bare(self, workload: Workload) -> Batch:
        """Return each sentence under the foundation alone."""
        return self.batch(workload, [0] * self.sizes.adapters)

    def peer(self, workload: Workload, precision: str) -> PeftPeer:
        """Return PEFT with the workload's adapters and its mixed batch."""
        peer = PeftPeer(self.folder, workload, self.threads, self.device, PRECISIONS[precision])
        peer.prepare(self.mixed(workload), self.spec.inputs, workload.names)
        return peer

    def row(self, title: str, top: BenchSide, bottom: BenchSide, runs: int = _RUNS) -> BenchmarkRow:
        """Measure the seconds of `top` ÷ those of `bottom`, on a device that has nothing else to do."""
        work = [partial(_synchronize, self.device, side.work) for side in (top, bottom)]
        pairs = interleave(work[0], work[1], self.sizes.pairs, runs)
        return BenchmarkRow("torch-runner", title, top.title, bottom.title, "seconds a batch", pairs)


@dataclass(frozen=True)
class BenchSide:
    """One side of a row: its work in words and as a call."""

    title: str
    work: Callable[[], object]


def check_parity(bench: GpuBench, rank: int) -> list[str]:
    """Compare the answers with PEFT's and return the largest differences in words.

    Raise Disagreement beyond the bounds of measure/agreement.py.
    """
    workload = bench.workload(rank, bench.sizes.tokens[0])
    mixed, shifted = bench.mixed(workload), bench.mixed(workload, shift=1)
    expected = list(bench.peer(workload, "fp32").run())
    lines = []
    for precision in PRECISIONS:
        runner = bench.runner(workload, precision, graphs=True)
        what, tolerance, worst = f"rank {rank}, {precision} against PEFT in fp32", TOLERANCES[precision], 0.0
        # Eager, then captured, then replayed.
        for _ in range(3):
            answers = runner.run(mixed)
            worst = max(worst, require_equal(answers, expected, what, tolerance))
            require_same_label(answers, expected, what, tolerance)
        require_distinct(expected, runner.run(shifted), f"{what}, the neighbour's adapter")
        lines.append(f"{what}: largest difference {worst:.1e}, {tolerance:g} + {tolerance:g}·|x| allowed")
    return lines


def foundation_rows(bench: GpuBench) -> Iterator[BenchmarkRow]:
    """Measure distinct adapters against the foundation alone, by tokens and rank, with graphs and without."""
    rank, first = bench.sizes.ranks[0], bench.sizes.tokens[0]
    cases = [(rank, tokens) for tokens in bench.sizes.tokens]
    cases += [(rank, first) for rank in bench.sizes.ranks[1:]]
    count = bench.sizes.adapters
    for rank, tokens in cases:
        workload = bench.workload(rank, tokens)
        for graphs in _graphs(bench.device):
            run = bench.runner(workload, bench.precision, graphs).run
            how = f"{count}×{tokens} tokens, {bench.precision}, {'CUDA graphs' if graphs else 'eager'}"
            yield bench.row(
                f"{count} adapters of rank {rank} ÷ the foundation alone: {how}",
                BenchSide(f"TorchRunner.run, {how}: bare", partial(run, bench.bare(workload))),
                BenchSide(f"TorchRunner.run, {how}: an adapter a row", partial(run, bench.mixed(workload))),
            )


def peer_rows(bench: GpuBench) -> Iterator[BenchmarkRow]:
    """Measure distinct adapters against PEFT in the same precision, and against the runner without graphs."""
    rank, tokens = bench.sizes.ranks[0], bench.sizes.tokens[0]
    workload = bench.workload(rank, tokens)
    mixed = bench.mixed(workload)
    peer = bench.peer(workload, bench.precision)
    best = bench.runner(workload, bench.precision, graphs=True)
    count = bench.sizes.adapters
    shape = f"{count} adapters of rank {rank}, {count}×{tokens} tokens, {bench.precision}"
    ours = BenchSide(f"TorchRunner.run, {shape}", partial(best.run, mixed))
    theirs = BenchSide(f"PeftModel(…, adapter_names=…), {shape}", peer.run)
    yield bench.row(f"against PEFT's mixed batch: {shape}", theirs, ours, _FEW_RUNS)
    theirs = BenchSide(f"for each row set_adapter and a forward pass, {shape}", peer.one_by_one)
    yield bench.row(f"against one set_adapter a request: {shape}", theirs, ours, _FEW_RUNS)
    if len(_graphs(bench.device)) > 1:
        eager = BenchSide(
            f"{ours.title}, eager", partial(bench.runner(workload, bench.precision, False).run, mixed)
        )
        yield bench.row(f"CUDA graphs against none: {shape}", eager, ours)


def _graphs(device: str) -> tuple[bool, ...]:
    return (True, False) if device.startswith("cuda") else (False,)


def _synchronize(device: str, work: Callable[[], object]) -> None:
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _line(row: BenchmarkRow) -> str:
    """Return a row in plain text, since `rich` may be missing."""
    interval = row.interval
    middle = row.middle
    return (
        f"{interval.median:7.3f}  {interval.low:.3f} to {interval.high:.3f} ({interval.coverage:.0%})  "
        f"{middle.top * 1e3:.2f} against {middle.bottom * 1e3:.2f} ms  {row.title}"
    )


def main() -> None:
    """Check and measure, and print each row. With --json also write the figures."""
    parser = argparse.ArgumentParser(prog="python -m rootstock.loadtest.engine.gpu", description=__doc__)
    parser.add_argument("--foundation", default="default", help="Folder that save_pretrained wrote.")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=cores(), help="Threads of each side on the CPU.")
    parser.add_argument(
        "--quick", action="store_true", help="Run few adapters and pairs, to check that the benchmark works."
    )
    parser.add_argument("--json", type=Path, help="File for the figures.")
    options = parser.parse_args()
    on_cuda = options.device.startswith("cuda")
    gpu = {"gpu": torch.cuda.get_device_name(options.device), "cuda": torch.version.cuda} if on_cuda else {}
    machine = {**describe_machine(), **gpu}
    for name, value in machine.items():
        _say(f"{name}: {value}")
    sizes = QUICK if options.quick else WHOLE
    parity, rows = [], []
    try:
        files = locate(options.foundation)
        bench = GpuBench(files.folder, describe(files), options.device, options.threads, sizes)
        for rank in sizes.ranks:
            parity += check_parity(bench, rank)
        for line in [*parity, "", " median  interval        middle pair"]:
            _say(line)
        for row in chain(foundation_rows(bench), peer_rows(bench)):
            rows.append(row)
            _say(_line(row))
    except (FoundationError, Disagreement) as error:
        raise SystemExit(f"rootstock.loadtest.engine.gpu: {error}") from None
    if options.json is not None:
        parameters = {
            "benchmarks": ["torch-runner"],
            **vars(sizes),
            "foundation": files.name,
            "threads": options.threads,
            "parity": parity,
        }
        BenchmarkRun(machine, parameters, Outcome(rows)).write(options.json)


if __name__ == "__main__":
    main()
