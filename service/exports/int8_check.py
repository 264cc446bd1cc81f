"""The check of an int8 export: golden sets run on it and on the fp32 export, and the outputs are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from rootstock.adapters.bundle import Limits
from rootstock.adapters.spec import EMBEDDING, Adapter, Array
from rootstock.service.engine.core.catalog import FOUNDATION, foundation_adapter
from rootstock.service.engine.encode.modalities.text import Input, Tokenizer, pad, reader_of, with_tokenizer
from rootstock.service.engine.encode.tasks import TASKS
from rootstock.service.engine.encode.tasks.text_task import TextTask
from rootstock.service.engine.runners.onnx.runner import OnnxRunner
from rootstock.service.exports.pointed_versions import PointedVersions, Progress
from rootstock.service.tolerance import LEAST_COSINE, TOLERANCES, axis_of, cosine

# The least shares of top labels that must stay the same: over all adapters, and for each adapter. One change is
# always allowed, because a golden set has only 8 to 16 inputs.
LEAST_SAME = 0.98
LEAST_SAME_OF_ONE = 0.90

SENTENCES = (
    "Where is my parcel? It was due on Monday.",
    "ok",
    "The new headphones sound dull, and the left ear cup broke within a week of careful use.",
    "Ada Lovelace met Charles Babbage in London in June 1833, at a party in Dorset Street.",
    "Invoice 20417: 3 x 19.99 EUR, due 2024-03-01.",
    "Der Zug nach Köln fährt heute von Gleis 4 ab.",
    "HTTP 503 after the second retry; the log says nothing else.",
    "She said that she would have called, had she known that the shop closed at noon, but nobody had told her.",
)


@dataclass(frozen=True)
class PrecisionRow:
    """The effect of int8 on one adapter's raw outputs.

    `labels` is the number of tokens or inputs with a top label, 0 if the task has none. `same` is the number of
    those that keep it. `outside` is the number of inputs that differ by more than the tolerance. `cosine` is the
    least cosine between embeddings.
    """

    adapter: str
    task: str
    inputs: int
    max_difference: float
    mean_difference: float
    labels: int
    same: int
    outside: int
    cosine: float | None = None


@dataclass(frozen=True)
class PrecisionChange:
    """The effect of int8 on all adapters: a row for the foundation's embeddings, then one for each adapter.

    `not_checked` maps the references of all other adapters to the reason.
    """

    rows: Sequence[PrecisionRow]
    not_checked: Mapping[str, str]

    COLUMNS = ("adapter", "inputs", "largest difference", "mean difference", "same top label", "cosine")

    @property
    def total(self) -> PrecisionRow:
        """Return the sum of the adapters' rows; the mean difference is over their inputs."""
        rows = self.rows[1:]
        inputs = sum(row.inputs for row in rows)
        return PrecisionRow(
            adapter=f"{len(rows)} adapters",
            task="",
            inputs=inputs,
            max_difference=max((row.max_difference for row in rows), default=0.0),
            mean_difference=sum(row.mean_difference * row.inputs for row in rows) / max(inputs, 1),
            labels=sum(row.labels for row in rows),
            same=sum(row.same for row in rows),
            outside=sum(row.outside for row in rows),
        )

    @property
    def refusals(self) -> list[str]:
        """Return the reasons not to serve int8; empty if it may be served."""
        excesses = []
        most = TOLERANCES["int8"]
        for row in self.rows:
            if row.outside:
                excesses.append(f"{row.adapter}: {row.outside} of {row.inputs} inputs differ by more than {most}")
            if row.cosine is not None and row.cosine < LEAST_COSINE:
                excesses.append(f"{row.adapter}: cosine {row.cosine:.4f}; the least is {LEAST_COSINE}")
        for row, least in [*((row, LEAST_SAME_OF_ONE) for row in self.rows), (self.total, LEAST_SAME)]:
            if row.labels - row.same > 1 and row.same / row.labels < least:
                excesses.append(
                    f"{row.adapter}: {row.same} of {row.labels} top labels stay; the least is {least:.0%}"
                )
        return excesses

    def cells(self) -> list[dict[str, str]]:
        """Return the rows and their total as table rows, each a mapping from column to text."""
        return [
            {
                "adapter": row.adapter,
                "inputs": str(row.inputs),
                "largest difference": f"{row.max_difference:.4f}",
                "mean difference": f"{row.mean_difference:.4f}",
                "same top label": f"{row.same} of {row.labels}" if row.labels else "-",
                "cosine": "-" if row.cosine is None else f"{row.cosine:.4f}",
            }
            for row in (*self.rows, self.total)
        ]

    def to_json(self) -> dict[str, Any]:
        """Return a form that json can write, with the bounds."""
        return {
            "adapters": [asdict(row) for row in self.rows],
            "total": asdict(self.total),
            "not_checked": dict(self.not_checked),
            "bounds": {
                "difference": str(TOLERANCES["int8"]),
                "cosine": LEAST_COSINE,
                "same": LEAST_SAME,
                "same_of_one": LEAST_SAME_OF_ONE,
            },
            "refusals": self.refusals,
        }


def measure(
    fp32: Path,
    int8: Path,
    home: Path,
    foundation: Path,
    limits: Limits,
    threads: int,
    progress: Progress = lambda done, total: None,
) -> PrecisionChange:
    """Return the effect of int8 on every version in the home's registry that an alias points to.

    `foundation` is the foundation's folder. The home is only read, so a server may use it at the same time.
    `progress` is called with the number of versions that are done and their total.
    """
    replays = GoldenReplay(fp32, threads), GoldenReplay(int8, threads)
    spec = replays[0].spec
    pointed = PointedVersions(home, foundation, spec, limits)

    def row(name: str, adapter: Adapter, inputs: Sequence[Input]) -> PrecisionRow:
        outputs = (replay.outputs(adapter, inputs, special_tokens=False) for replay in replays)
        return _row(name, adapter.task, *outputs)

    rows = [row(FOUNDATION, foundation_adapter(spec), SENTENCES)]
    for name, adapter, golden in pointed.open(progress):
        if golden is None:
            pointed.not_checked[name] = "no golden set"
        else:
            rows.append(row(name, adapter, golden.texts))
    return PrecisionChange(rows, pointed.not_checked)


class GoldenReplay:
    """An export, opened to run golden inputs."""

    def __init__(self, export: Path, threads: int) -> None:
        self._runner = OnnxRunner(export, 1, threads)
        self._tokenizer = Tokenizer(export / "tokenizer.json")
        self.spec = self._runner.spec

    def outputs(self, adapter: Adapter, inputs: Sequence[Input], special_tokens: bool = True) -> list[Array]:
        """Return an adapter's raw output for each input, for tokens with or without the special ones."""
        # A golden input is one row, even for tasks that make several rows of an input.
        task, cut = cast(TextTask, TASKS[adapter.task]), {"truncation": True}
        reader = reader_of(with_tokenizer(adapter, self._tokenizer), self._tokenizer)
        rows = [task.read(value, adapter.preprocessing, cut, reader) for value in inputs]
        self._runner.place(0, self._runner.stage(adapter))
        # One row at a time: a batch as long as the longest input may not fit into memory.
        outputs = [self._runner.run(pad([row], [0], self._tokenizer.pad_id))[0] for row in rows]
        if special_tokens or adapter.task != "token-classification":
            return outputs
        # Special tokens have outputs too, but no answer contains them.
        kept = [np.flatnonzero(np.array(row.encoding.special_tokens_mask) == 0) for row in rows]
        return [output[at] for output, at in zip(outputs, kept, strict=True)]


def _row(name: str, task: str, expected: Sequence[Array], outputs: Sequence[Array]) -> PrecisionRow:
    differences = [np.abs(a - b) for a, b in zip(expected, outputs, strict=True)]
    embeds = task in EMBEDDING.values()
    allowed = [TOLERANCES["int8"].allowed(a, task) for a in expected]
    pairs = list(zip(expected, outputs, strict=True))
    tops = [np.ravel(a.argmax(axis_of(task)) == b.argmax(axis_of(task))) for a, b in pairs]
    labelled = not embeds and expected[0].shape[axis_of(task)] > 1
    same = np.concatenate(tops) if labelled else np.zeros(0, bool)
    return PrecisionRow(
        adapter=name,
        task=task,
        inputs=len(expected),
        max_difference=max(float(d.max()) for d in differences),
        mean_difference=float(np.concatenate([d.ravel() for d in differences]).mean()),
        labels=len(same),
        same=int(same.sum()),
        outside=sum(bool((d > most).any()) for d, most in zip(differences, allowed, strict=True)),
        cosine=min(cosine(a, b) for a, b in pairs) if embeds else None,
    )
