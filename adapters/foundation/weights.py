"""Reads the foundation's own tensors, which some adapters are stated relative to. It needs only numpy."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rootstock.adapters.bundle.base_weights import TRANSPOSED
from rootstock.adapters.bundle.tensors import as_fp32
from rootstock.adapters.bundle.vocabulary.own_tokenizer import OwnTokenizer, own_tokenizer
from rootstock.adapters.foundation.fused_tensors import parts_of
from rootstock.adapters.foundation.tensor_names import current_name
from rootstock.adapters.spec import Array, Rejected

# Constants that transformers computes again, a counter, and the vectors that only pre-training reads.
_UNREAD = re.compile(
    r"(.*\.)?(position_ids|token_type_ids|relative_position_index|num_batches_tracked|mask_token|masked_spec_embed)",
    re.ASCII,
)
_TRUNK_PREFIX = {
    "xlm-roberta": "roberta", "camembert": "roberta", "jina_embeddings_v3": "roberta", "deberta-v2": "deberta",
    "modernbert": "model", "eurobert": "model", "gpt2": "transformer"
} | dict.fromkeys(
    (
        "llama", "qwen2", "qwen3", "mistral", "gemma", "gemma2", "gemma3_text", "phi", "phi3", "granite", "olmo2",
        "smollm3", "bart", "mbart", "pegasus", "marian",
    ),
    "model",
) | {
    "audio-spectrogram-transformer": "audio_spectrogram_transformer"
} | dict.fromkeys(
    ("clip", "clip_vision_model", "siglip", "siglip_vision_model"), "vision_model"
) | dict.fromkeys(("clip_text_model", "siglip_text_model"), "text_model")  # fmt: skip
# Checkpoints of one architecture may call the trunk differently, or begin the names of one part of it by "model".
_TRUNK_PREFIXES = {"whisper": ("model.encoder.", "encoder."), "dinov3_vit": (), "gte": ("gte.", "new.")}
# The beginning of an output layer's names, and the one in files of GPT-NeoX.
_OUTPUT, _FORMER_OUTPUT = "lm_head.", "embed_out."
# Architectures whose head stands beside the trunk's parts, and its tensors.
_HEADS = dict.fromkeys(("t5", "mt5"), "lm_head.")


@dataclass(frozen=True)
class _TensorPlace:
    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


class FoundationWeights:
    """The trunk's tensors in a folder's safetensors files, by the names that its modules give them.

    An instance holds only the files' headers, and maps a tensor's bytes from the file on demand.
    """

    def __init__(self, folder: Path, model_type: str) -> None:
        self.folder = folder
        files: dict[str, _TensorPlace] = {}
        for path in sorted(folder.glob("*.safetensors")):
            files.update(_header(path))
        head = _HEADS.get(model_type)
        if head is not None:
            inside = {n: p for n, p in files.items() if not n.startswith(head)}
        else:
            inside = _inside(files, model_type)
        taken = set(map(id, inside.values()))
        named = {n: p for name, place in inside.items() for n, p in _parts(model_type, name, place)}
        self._places = {n: p for n, p in named.items() if not _UNREAD.fullmatch(n)}
        self._beside = {n: p for n, p in files.items() if id(p) not in taken}
        self._mapped: dict[Path, npt.NDArray[np.uint8]] = {}
        self._prefix = f"{_TRUNK_PREFIX.get(model_type, model_type)}."
        self._transposed = model_type in TRANSPOSED

    @property
    def names(self) -> list[str]:
        """Return the names of the trunk's tensors inside the trunk, sorted; without heads and unread ones."""
        return sorted(self._places)

    @property
    def beside(self) -> list[str]:
        """Return the names of the tensors outside the trunk, sorted: the checkpoint's heads.

        Of a model of two towers they are those of the tower for texts and of both projections.
        """
        return sorted(name for name in self._beside if not _UNREAD.fullmatch(name))

    def raw(self, name: str) -> tuple[str, list[int], memoryview]:
        """Return the dtype, shape and little-endian bytes of a tensor, inside or outside the trunk."""
        place = self._places.get(name) or self._beside[name]
        if place.file not in self._mapped:
            self._mapped[place.file] = np.memmap(place.file, np.uint8, "r")
        return place.dtype, list(place.shape), self._mapped[place.file][place.start : place.end].data

    def weight(self, site: str) -> Array:
        """Return the weight of a linear layer: (out, in) fp32, read-only.

        A convolution's is flattened to (out, channels * kernel area), and that of a normalisation is (width,).
        Raise Rejected (check "foundation") if there is none.
        """
        weight = self._tensor(f"{site}.weight")
        if weight is None:
            # The name in a normalisation layer's files from before transformers renamed the tensor.
            weight = self._tensor(f"{site}.gamma")
        if weight is None:
            raise Rejected("foundation", site, "the foundation's files hold no weight of this module")
        if weight.ndim > 2:
            return weight.reshape(len(weight), -1)
        return weight.T if self._transposed else weight

    def embedding(self, module: str) -> Array:
        """Return the rows of an embedding: (tokens, width) fp32, read-only.

        Raise Rejected (check "foundation") if there is none.
        """
        rows = self._tensor(f"{module}.weight")
        if rows is None:
            raise Rejected("foundation", module, "the foundation's files hold no weight of this embedding")
        return rows

    def tokenizer(self) -> OwnTokenizer:
        """Return what the folder's tokenizer.json says. It is read once, for the first adapter that needs it."""
        return self._tokenizer

    @cached_property
    def _tokenizer(self) -> OwnTokenizer:
        data = (self.folder / "tokenizer.json").read_bytes()
        return own_tokenizer(json.loads(data), len(data))

    def number(self, name: str) -> float | None:
        """Return a tensor of one number, inside or outside the trunk; None if there is none of this name."""
        tensor = self._tensor(name)
        return None if tensor is None else float(tensor.reshape(-1)[0])

    def bias(self, module: str) -> Array | None:
        """Return the bias of a linear or normalisation layer: (out,) fp32, read-only, or None if it has none."""
        bias = self._tensor(f"{module}.bias")
        # `beta` is the name in files from before transformers renamed the tensor.
        return self._tensor(f"{module}.beta") if bias is None else bias

    def _tensor(self, name: str) -> Array | None:
        if name not in self._places and name not in self._beside:
            # An adapter of a model of two towers names modules as that model does.
            name = name.removeprefix(self._prefix)
            name = name.replace(_OUTPUT, _FORMER_OUTPUT) if name.startswith(_OUTPUT) else name
        if name not in self._places and name not in self._beside:
            return None
        dtype, shape, data = self.raw(name)
        return as_fp32(name, dtype, tuple(shape), data)


def _inside(files: Mapping[str, _TensorPlace], model_type: str) -> dict[str, _TensorPlace]:
    """Return the trunk's tensors without the prefix of their names. Files of a bare trunk have no prefix."""
    for prefix in _TRUNK_PREFIXES.get(model_type, (_TRUNK_PREFIX.get(model_type, model_type) + ".",)):
        if inside := {n.removeprefix(prefix): p for n, p in files.items() if n.startswith(prefix)}:
            return inside
    return dict(files)


def _parts(model_type: str, name: str, place: _TensorPlace) -> Iterator[tuple[str, _TensorPlace]]:
    """Yield the present names of the tensors that a tensor in a file holds, each with its own rows."""
    parts = parts_of(model_type, current_name(model_type, name))
    rows, size = place.shape[:1], (place.end - place.start) // len(parts)
    for i, part in enumerate(parts):
        shape = (rows[0] // len(parts), *place.shape[1:]) if len(parts) > 1 else place.shape
        start = place.start + i * size
        yield part, replace(place, shape=shape, start=start, end=start + size)


def _header(path: Path) -> dict[str, _TensorPlace]:
    """Return the place of each tensor in a file of the safetensors layout: 8-byte length, JSON, data."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    begin = 8 + length
    places = {}
    for name, entry in header.items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            places[name] = _TensorPlace(path, entry["dtype"], tuple(entry["shape"]), begin + start, begin + end)
    return places
