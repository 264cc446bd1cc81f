"""Computes the outputs of a model and of its adapter with transformers. This module imports torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from tokenizers import Tokenizer
from torch import Tensor, nn

from rootstock.adapters.errors import SourceError
from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.adapters.sources.output_layer import OutputLayer
from rootstock.adapters.spec import FoundationSpec, HeadSpec, Preprocessing, TaskClass

Text = str | tuple[str, str]
Tokens = Mapping[str, Tensor]
# The settings that decide the shapes of the trunk's parameters, by the names that all architectures know.
_SIZES = (
    "model_type", "num_hidden_layers", "hidden_size", "embedding_size", "intermediate_size",
    "num_attention_heads", "num_key_value_heads", "head_dim", "vocab_size", "type_vocab_size",
    "max_position_embeddings",
)  # fmt: skip


class TrunkModule(nn.Module):
    """A trunk under the attribute that it has in a task's class, so that its parameters have the same names."""

    def __init__(self, prefix: str, trunk: nn.Module) -> None:
        super().__init__()
        self.add_module(prefix.removesuffix("."), trunk)

    def forward(self, **inputs: Tensor) -> Any:
        (trunk,) = self.children()
        return trunk(**inputs)


class OutputFunction:
    """The raw outputs of a head for some inputs, as a function of the parameters of one model.

    `layer` is the linear layer of a head that pools, None for embeddings and for the head of a task's class.
    """

    def __init__(
        self, model: nn.Module, head: HeadSpec, layer: OutputLayer | None, inputs: Sequence[Tokens]
    ) -> None:
        self._model = model
        self._head = head
        self._layer = layer
        self._inputs = inputs

    def __call__(self, parameters: Mapping[str, Tensor]) -> Iterator[Tensor]:
        """Yield one output for each input, as a golden set holds it.

        An output is fp32 and has shape (labels,), (dimensions,) or (tokens, labels).
        """
        for tokens in self._inputs:
            with torch.no_grad():
                answer = torch.func.functional_call(self._model, dict(parameters), (), dict(tokens))
                yield self._output(answer)

    def _output(self, answer: Any) -> Tensor:
        if self._head.kind != "linear":
            if "start_logits" in answer:
                return torch.stack([answer.start_logits[0], answer.end_logits[0]], dim=-1)
            return cast(Tensor, answer.logits[0])
        states = answer.last_hidden_state[0]
        vector: Tensor = {"mean": states.mean(0), "cls": states[0], "last": states[-1]}[self._head.pooling]
        if self._head.normalize:
            vector = nn.functional.normalize(vector, dim=0)
        if self._layer is None:
            return vector
        return torch.from_numpy(self._layer.weight) @ vector + torch.from_numpy(self._layer.bias)


def check_sizes(folder: Path, files: FoundationFiles) -> None:
    """Raise SourceError if the config of the model in a folder states other sizes than the foundation's.

    A model with too many layers takes hours to build, even without weights.
    """
    its, own = (
        transformers.AutoConfig.from_pretrained(path, trust_remote_code=False, local_files_only=True)
        for path in (folder, files.folder)
    )
    for key in _SIZES:
        if (size := getattr(its, key, None)) != (expected := getattr(own, key, None)):
            raise SourceError(
                f"{key} is {size!r} in {folder}, and {expected!r} in {files.name}: this is another model; give "
                "the foundation that it was trained from"
            )


def load_model(folder: Path, task_class: TaskClass, pools: bool, labels: int) -> tuple[nn.Module, set[str]]:
    """Return the model in a folder in fp32, with the names of parameters that its files lack.

    The model is one of the task's class with `labels` labels. If the head pools, it is the trunk alone under the
    same names. Raise SourceError if transformers cannot load it.
    """
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    model_class: Any = transformers.AutoModel if pools else getattr(transformers, task_class.name)
    sized = {} if pools or not labels else {"num_labels": labels}
    try:
        model, report = model_class.from_pretrained(
            folder,
            **sized,
            dtype=torch.float32,
            attn_implementation="eager",
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    # Each library raises errors of many types for a damaged or strange file.
    except Exception as error:
        raise SourceError(f"transformers cannot load {folder}: {error!r}") from error
    missing = set(report["missing_keys"])
    if pools and task_class.prefix:
        prefix = task_class.prefix
        return TrunkModule(prefix, model.eval()), {prefix + name for name in missing}
    return model.eval(), missing


def tokens_of(
    files: FoundationFiles, spec: FoundationSpec, texts: Sequence[Text], preprocessing: Preprocessing
) -> list[tuple[Text, Tokens]]:
    """Return the texts that fit within the longest input, each with its tokens, as the foundation reads it."""
    tokenizer = _tokenizer(files.folder)
    read: list[tuple[Text, Tokens]] = []
    for text in texts:
        first, second = (text, None) if isinstance(text, str) else text
        encoding = tokenizer.encode(preprocessing.prefix + first, second)
        tokens = {
            "input_ids": torch.tensor([encoding.ids]),
            "attention_mask": torch.tensor([encoding.attention_mask]),
        }
        if "token_type_ids" in spec.inputs:
            tokens["token_type_ids"] = torch.tensor([encoding.type_ids])
        if len(encoding.ids) <= preprocessing.max_length:
            read.append((text, tokens))
    return read


def reads_alike(folder: Path, files: FoundationFiles, texts: Sequence[str]) -> bool:
    """Return whether the tokenizer in a folder makes the foundation's tokens of the texts; true without one."""
    if not (folder / "tokenizer.json").is_file():
        return True
    mine, its = _tokenizer(folder), _tokenizer(files.folder)
    return all(mine.encode(text).ids == its.encode(text).ids for text in texts)


def _tokenizer(folder: Path) -> Tokenizer:
    path = folder / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(path))
    # The library raises plain exceptions for a damaged file.
    except Exception as error:
        raise SourceError(f"{path} cannot be read: {error}") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
