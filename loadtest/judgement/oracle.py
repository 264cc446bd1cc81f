"""The answers to expect. transformers and PEFT compute them beforehand, never the server under test."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rootstock.adapters.spec import Array, FoundationSpec
from rootstock.loadtest.fixtures.workload import LABELS, WHOLE, folder_of

TOLERANCE = 1e-4
# The longest text that the foundation embeds, by its sentence-transformers files.
_EMBEDDED_TOKENS = 256


@dataclass(frozen=True)
class ExpectedText:
    """The text of a greedy answer, and the number of its tokens.

    It is only the beginning of the answer unless `whole`.
    """

    text: str
    tokens: int
    whole: bool = True


@dataclass(frozen=True)
class OracleVersion:
    """A version that may answer, with its number.

    By text (index): a classifier's `scores` of each label, in id order; the `answers` of an adapter that
    generates.
    """

    name: str
    number: int
    scores: Mapping[int, Sequence[float]] = field(default_factory=dict)
    answers: Mapping[int, ExpectedText] = field(default_factory=dict)

    @property
    def known(self) -> list[int]:
        """Return the texts whose answers are known."""
        return [*self.scores, *self.answers]


@dataclass(frozen=True)
class Oracle:
    """Texts, versions by digest, and the foundation's fingerprint with its embedding of each text.

    A generated answer ends after `max_tokens` tokens.
    """

    texts: Sequence[str]
    versions: Mapping[str, OracleVersion]
    fingerprint: str = ""
    embeddings: Sequence[Sequence[float]] = ()
    max_tokens: int = 0

    def write(self, path: Path) -> None:
        """Write the oracle as JSON."""
        content = asdict(self)
        path.write_text(json.dumps(content), encoding="utf-8")

    @staticmethod
    def read(path: Path) -> Oracle:
        """Return the oracle that `write` wrote."""
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        versions = {digest: _version(version) for digest, version in content.pop("versions").items()}
        return Oracle(**content, versions=versions)


def _version(content: Mapping[str, Any]) -> OracleVersion:
    scores = {int(text): scores for text, scores in content["scores"].items()}
    answers = {int(text): ExpectedText(**answer) for text, answer in content["answers"].items()}
    return OracleVersion(content["name"], content["number"], scores, answers)


class PeftOracle:
    """A sequence classifier of transformers (sdpa, fp32), whose adapter PEFT sets before each answer."""

    def __init__(self, foundation: Path, spec: FoundationSpec) -> None:
        import torch
        import transformers
        from peft import PeftModel

        # One text at a time gives a second thread little to do but wait.
        torch.set_num_threads(1)
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        self._spec = spec
        self._foundation = foundation
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(foundation)
        base = transformers.AutoModelForSequenceClassification.from_pretrained(
            foundation, num_labels=LABELS, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        )
        with tempfile.TemporaryDirectory() as folder:
            for member, content in folder_of(spec, WHOLE, 0).items():
                (Path(folder) / member).write_bytes(content)
            with warnings.catch_warnings():
                # peft reads an attribute that transformers renamed; the outputs do not depend on it.
                warnings.simplefilter("ignore", FutureWarning)
                self._model = PeftModel.from_pretrained(base, folder).eval()

    def scores(self, bundle: int, texts: Sequence[str]) -> list[list[float]]:
        """Return for each text the scores of the workload's adapter number `bundle`, in id order."""
        import torch
        from peft import set_peft_model_state_dict
        from safetensors.torch import load

        weights = load(folder_of(self._spec, WHOLE, bundle)["adapter_model.safetensors"])
        result = set_peft_model_state_dict(self._model, weights)
        if result.unexpected_keys:
            raise ValueError(f"PEFT does not know {result.unexpected_keys[0]} of adapter {bundle}")
        scores: list[list[float]] = []
        for text in texts:
            with torch.inference_mode():
                logits = self._model(**self._encode(text, self._spec.max_tokens)).logits[0]
            scores.append(logits.softmax(-1).tolist())
        return scores

    def embeddings(self, texts: Sequence[str]) -> list[list[float]]:
        """Return each text's embedding by the bare foundation: mean of the last states, normalised."""
        import torch
        import transformers

        trunk = transformers.AutoModel.from_pretrained(
            self._foundation, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        ).eval()
        vectors: list[list[float]] = []
        for text in texts:
            encoded = self._encode(text, _EMBEDDED_TOKENS)
            with torch.inference_mode():
                mean = trunk(**encoded).last_hidden_state[0].mean(0)
            vectors.append((mean / mean.norm()).tolist())
        return vectors

    def _encode(self, text: str, max_length: int) -> Any:
        return self._tokenizer(text, truncation=True, max_length=max_length, return_tensors="pt")


def close(actual: Iterable[float], expected: Iterable[float], tolerance: float = TOLERANCE) -> bool:
    """Return whether each number is within t + t·|x| of its counterpart (t: the published tolerance)."""
    one: Array = np.array(list(actual), np.float64)
    other: Array = np.array(list(expected), np.float64)
    return one.shape == other.shape and bool((np.abs(one - other) <= tolerance + tolerance * np.abs(other)).all())
