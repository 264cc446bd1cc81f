"""The runner's speed by number of adapters, their popularity and rank, and the batch's rows and tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import cycle, islice, product
from pathlib import Path
from typing import Any, cast

from rootstock.loadtest.fixtures.popularity import POPULARITIES, choose
from rootstock.loadtest.fixtures.runner_bench import Bench, open_bench
from rootstock.loadtest.fixtures.setup import BenchmarkSetup
from rootstock.loadtest.fixtures.workload import Kind, sentences
from rootstock.loadtest.measure.agreement import require_equal
from rootstock.loadtest.measure.interval import MedianInterval, median_interval
from rootstock.loadtest.measure.outcome import write_json
from rootstock.loadtest.measure.pairs import interleave
from rootstock.loadtest.measure.row import Pair
from rootstock.service.engine.encode.batch import Batch
from rootstock.service.engine.encode.modalities.text import Tokenizer

# The batches of a cell, which run one after the other.
_BATCHES = 4
_CHECKED = 4


@dataclass(frozen=True)
class Cell:
    """A combination: distinct adapters, their popularity and rank, rows a batch, and tokens a row."""

    adapters: int = 32
    popularity: str = "distinct"
    rank: int = 8
    batch: int = 32
    tokens: int = 64


FACTORS: dict[str, Sequence[Any]] = {
    "adapters": (1, 4, 16, 32, 128),
    "popularity": POPULARITIES,
    "rank": (8, 16, 64),
    "batch": (1, 8, 32),
    "tokens": (16, 64, 256),
}
CENTRE = Cell()


@dataclass(frozen=True)
class Point:
    """A cell with its pairs of seconds: the foundation alone (top) and the cell (bottom)."""

    cell: Cell
    pairs: Sequence[Pair]

    @property
    def ratio(self) -> MedianInterval:
        """Return the cell's speed ÷ the foundation's."""
        return median_interval([pair.ratio for pair in self.pairs])

    @property
    def rows_s(self) -> float:
        """Return the median of the cell's rows a second."""
        return median_interval([self.cell.batch / pair.bottom for pair in self.pairs]).median

    def to_json(self) -> dict[str, Any]:
        """Return the cell with its figures, JSON-ready."""
        ratio = self.ratio
        return {
            **asdict(self.cell),
            "rows_s": self.rows_s,
            "ratio": ratio.median,
            "interval": [ratio.low, ratio.high],
            "coverage": ratio.coverage,
            "pairs": [{"bare_s": pair.top, "seconds": pair.bottom} for pair in self.pairs],
        }

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> Point:
        """Return the point that `to_json` gave. Its figures are computed again from the pairs."""
        cell = Cell(**{name: content[name] for name in FACTORS})
        return Point(cell, [Pair(pair["bare_s"], pair["seconds"]) for pair in content["pairs"]])


@dataclass(frozen=True)
class SweepRun:
    """The points of one sweep, with the machine that gave them and the sweep's parameters."""

    machine: Mapping[str, Any]
    parameters: Mapping[str, Any]
    points: Sequence[Point]

    def to_json(self) -> dict[str, Any]:
        """Return the whole sweep, JSON-ready."""
        return {
            "machine": dict(self.machine),
            "parameters": dict(self.parameters),
            "centre": asdict(CENTRE),
            "points": [point.to_json() for point in self.points],
        }

    def write(self, path: Path) -> None:
        """Write the sweep as JSON. Create the folder if it does not exist."""
        write_json(path, self.to_json())

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> SweepRun:
        """Return the sweep that `to_json` gave."""
        points = [Point.from_json(point) for point in content["points"]]
        return SweepRun(content["machine"], content["parameters"], points)


def cells(full: bool, factors: Mapping[str, Sequence[Any]] | None = None) -> list[Cell]:
    """Return every combination, or the centre and the cells that differ from it in one factor.

    Cells of one rank come together.
    """
    values = factors or FACTORS
    if full:
        chosen = [Cell(**dict(zip(values, combined, strict=True))) for combined in product(*values.values())]
    else:
        chosen = [replace(CENTRE, **{name: value}) for name in values for value in values[name]]
    return sorted(dict.fromkeys(chosen), key=lambda cell: (cell.rank, cell.adapters))


def sweep(setup: BenchmarkSetup, chosen: Sequence[Cell]) -> list[Point]:
    """Measure the cells. Raise Disagreement if a row's answer differs from its answer alone."""
    points = []
    bench: Bench | None = None
    kind: tuple[int, int] | None = None
    for i, cell in enumerate(chosen):
        setup.say(f"{i + 1} of {len(chosen)}: {_title(cell)}")
        if bench is None or kind != (cell.rank, cell.adapters):
            kind = (cell.rank, cell.adapters)
            tokens = FACTORS["tokens"][0]
            bench = open_bench(setup.export, tokens, setup.threads, cell.adapters, Kind(rank=cell.rank))
        points.append(Point(cell, _pairs(bench, cell, setup.pairs)))
    return points


def _pairs(bench: Bench, cell: Cell, pairs: int) -> list[Pair]:
    run = bench.runner.run
    batches = list(_batches(bench, cell))
    for batch in batches:
        answers = run(batch)
        for row in range(min(cell.batch, _CHECKED)):
            require_equal([answers[row]], run(batch.only([row])), f"{_title(cell)}: row {row} against alone")
    bare = cycle([replace(batch, slots=(0,) * cell.batch) for batch in batches])
    mixed = cycle(batches)
    return interleave(lambda: run(next(bare)), lambda: run(next(mixed)), pairs)


def _batches(bench: Bench, cell: Cell) -> Iterator[Batch]:
    spec, tokenizer = bench.runner.spec, cast(Tokenizer, bench.reader)
    texts = sentences(tokenizer, spec, cell.batch, cell.tokens)
    encoded = replace(bench.workload, sentences=tuple(texts)).encoded(tokenizer, spec)
    slots = dict(zip(bench.workload.names, range(1, bench.adapters + 1), strict=True))
    chosen = choose(bench.workload.names, cell.popularity)
    for _ in range(_BATCHES):
        yield bench.batch(encoded, [slots[name] for name in islice(chosen, cell.batch)])


def _title(cell: Cell) -> str:
    size = f"{cell.batch}×{cell.tokens} tokens"
    return f"{cell.adapters} adapters, {cell.popularity}, rank {cell.rank}, batches of {size}"
