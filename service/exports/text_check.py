"""The check of a decoder in fewer bits: the tokens of golden texts get their log-probabilities again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rootstock.adapters.bundle import Golden, Limits
from rootstock.adapters.foundation.architecture import describe
from rootstock.adapters.foundation.location import FoundationError, FoundationFiles
from rootstock.adapters.home.home import Home, shared_registry, shared_store
from rootstock.adapters.spec import TEXT_GENERATION, Adapter, Array, Rejected
from rootstock.service.engine.core.observer import Observer
from rootstock.service.engine.generate.engine import GenerationEngine, GenerationLimits
from rootstock.service.engine.generate.prompt import PromptTokenizer
from rootstock.service.engine.runners.decoder.decoder import TorchDecoder
from rootstock.service.exports.pointed_versions import PointedVersions, Progress
from rootstock.service.registry_catalog import RegistryCatalog
from rootstock.service.tolerance import LOGPROB_TOLERANCES, compare, golden_tokens

# The foundation's slot, one for an adapter, and the reserved one of verification.
_SLOTS = 3


@dataclass(frozen=True)
class TextRow:
    """The effect of a precision on the log-probabilities of one adapter's golden tokens.

    `refusal` says why a server of this precision would refuse the adapter, or is None.
    """

    adapter: str
    inputs: int
    tokens: int
    max_difference: float
    refusal: str | None


@dataclass(frozen=True)
class TextCheck:
    """The effect of a precision on all adapters. `not_checked` maps the references of others to the reason."""

    precision: str
    rows: Sequence[TextRow]
    not_checked: Mapping[str, str]

    COLUMNS = ("adapter", "inputs", "tokens", "largest difference", "verdict")

    @property
    def refusals(self) -> list[str]:
        """Return the reasons not to serve this precision; empty if it may be served."""
        return [f"{row.adapter}: {row.refusal}" for row in self.rows if row.refusal is not None]

    def cells(self) -> list[dict[str, str]]:
        """Return the rows as table rows, each a mapping from column to text."""
        return [
            {
                "adapter": row.adapter,
                "inputs": str(row.inputs),
                "tokens": str(row.tokens),
                "largest difference": f"{row.max_difference:.4f}",
                "verdict": "passed" if row.refusal is None else "refused",
            }
            for row in self.rows
        ]

    def to_json(self) -> dict[str, Any]:
        """Return a form that json can write, with the bound of log-probabilities."""
        return {
            "precision": self.precision,
            "adapters": [asdict(row) for row in self.rows],
            "not_checked": dict(self.not_checked),
            "bounds": {"difference": str(LOGPROB_TOLERANCES[self.precision])},
            "refusals": self.refusals,
        }


def check_texts(
    files: FoundationFiles,
    home: Path,
    precision: str,
    limits: Limits,
    threads: int | None,
    progress: Progress = lambda done, total: None,
) -> TextCheck:
    """Replay the golden set of every adapter that generates text and that an alias points to.

    Raise FoundationError for an encoder–decoder foundation. The home is only read, so a server may use it at the
    same time. `progress` is called with the number of versions that are done and their total.
    """
    spec = describe(files)
    if spec.causal_lm is None:
        raise FoundationError(f"{files.name}: an encoder–decoder foundation is served in fp32 alone")
    pointed = PointedVersions(home, files.folder, spec, limits)
    rows: list[TextRow] = []
    if not pointed:
        return TextCheck(precision, rows, pointed.not_checked)
    decoder = TorchDecoder(files.folder, spec, _SLOTS, 2 * spec.max_tokens, threads, precision)
    with closing(Home(home).open_registry(shared_registry())) as registry:
        catalog = RegistryCatalog(registry, Home(home).open_store(shared_store()), spec, limits, pointed.base)
        tokenizer = PromptTokenizer(files.folder)
        engine = GenerationEngine(spec, decoder, tokenizer, catalog, Observer(), GenerationLimits())
        engine.start()
        try:
            for name, adapter, golden in pointed.open(progress):
                if adapter.task != TEXT_GENERATION:
                    pointed.not_checked[name] = f"its task is {adapter.task}"
                elif golden is None:
                    pointed.not_checked[name] = "no golden set"
                else:
                    rows.append(_row(name, golden, _replayed(engine, adapter, golden, precision), precision))
        finally:
            engine.stop()
    return TextCheck(precision, rows, pointed.not_checked)


def _replayed(engine: GenerationEngine, adapter: Adapter, golden: Golden, precision: str) -> list[Array]:
    prompts = [text for text in golden.inputs if isinstance(text, str)]
    counts = [len(output) for output in golden.outputs]
    return asyncio.run(engine.replay(engine.equipped(adapter), prompts, counts, golden_tokens(golden, precision)))


def _row(name: str, golden: Golden, outputs: Sequence[Array], precision: str) -> TextRow:
    worst, refusal = 0.0, None
    for i, (output, expected) in enumerate(zip(outputs, golden.outputs, strict=True)):
        try:
            worst = max(worst, compare(output, expected, TEXT_GENERATION, precision, f"outputs[{i}]"))
        except Rejected as error:
            refusal = refusal or str(error)
    tokens = sum(len(expected) for expected in golden.outputs)
    return TextRow(name, len(outputs), tokens, worst, refusal)
