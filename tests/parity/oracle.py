"""PEFT on a tiny foundation: it makes an adapter of any cell, and answers for it once reloaded."""

from __future__ import annotations

import copy
import functools
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from peft import PeftModel, PeftType, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rootstock.service.engine.encode.modalities.text import TextSample
from tests.parity.foundations import Tiny
from tests.parity.matrix import ALONE, KINDS, TASKS, Cell, options
from tests.peft_adapters import without_wrong_warnings


class Oracle:
    """Adapters by `save_pretrained`, answers by `PeftModel.from_pretrained`; eager attention, fp32, one input at
    a time. A model's class is loaded once for each task and label count."""

    def __init__(self, tiny: Tiny) -> None:
        self._tiny = tiny

    def base(self, cell: Cell | str, attention: str = "eager") -> Any:
        """A new model of the class that the cell's task has, its head random; for the name of a task that the
        foundation answers alone, that of the checkpoint."""
        auto, outputs = (
            (ALONE[cell].auto, 0) if isinstance(cell, str) else (TASKS[cell.task].auto, _outputs_of(cell))
        )
        return copy.deepcopy(_load(self._tiny.folder, auto, outputs, attention))

    def save(self, cell: Cell, folder: Path, **changed: Any) -> None:
        """An adapter whose every trained tensor differs from its start, in the folder that PEFT makes of it.

        `changed` replaces options of the cell's config.
        """
        kind, task = KINDS[cell.kind], TASKS[cell.task]
        seed = zlib.crc32("/".join(cell).encode())
        torch.manual_seed(seed)
        model = self.base(cell)
        if kind.peft is None:
            self._save_head(model, cell, folder)
            return
        config = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(kind.peft)]
        with without_wrong_warnings():
            model = get_peft_model(model, config(**{"task_type": task.peft} | options(cell) | changed))
        move(model)
        # A third of the time to save, and no part of the adapter.
        model.create_or_update_model_card = lambda _: None
        model.save_pretrained(folder)

    def _save_head(self, model: Any, cell: Cell, folder: Path) -> None:
        width = self._tiny.spec.hidden_size
        if cell.task == "feature-extraction":
            tensors = {"head.weight": 0.2 * torch.randn(7, width), "head.bias": 0.2 * torch.randn(7)}
        else:
            named = {n: p for n, p in model.named_parameters() if self._is_of_head(model, n)}
            tensors = {n: p.detach() + 0.15 * torch.randn_like(p) for n, p in named.items()}
        folder.mkdir(parents=True)
        config = {"peft_type": None, "task_type": TASKS[cell.task].peft}
        (folder / "adapter_config.json").write_text(json.dumps(config))
        save_file(tensors, folder / "adapter_model.safetensors")

    def answers(
        self, cell: Cell | str, folder: Path | None, rows: Sequence[TextSample], attention: str = "eager"
    ) -> list[np.ndarray]:
        """The raw output of each input alone; for a task's name the bare foundation's, of fill-mask at masks.

        A tensor of the head that the folder does not bring is NaN, and so then is the answer.
        """
        model, head = self.reloaded(cell, folder, attention)
        with torch.inference_mode():
            outputs = [model(**self._feeds(row)) for row in rows]
            if cell == "fill-mask":
                at = [torch.tensor(row.ids) == self._tiny.mask[1] for row in rows]
                return [output.logits[0, mask].numpy() for output, mask in zip(outputs, at, strict=True)]
            pooler = isinstance(cell, Cell) and (cell.kind, cell.task) == ("lora-pooler", "feature-extraction")
            return [_raw(output, head, pooler).numpy() for output in outputs]

    def reloaded(
        self, cell: Cell | str, folder: Path | None, attention: str = "eager"
    ) -> tuple[Any, dict[str, Tensor]]:
        """The model with what is in the folder, without PEFT's class around it, and a head beside the model.

        PEFT's class for question answering drops the token types.
        """
        model = self.base(cell, attention)
        head: dict[str, Tensor] = {}
        if isinstance(cell, Cell) and folder is not None:
            self._forget_head(model)
            if KINDS[cell.kind].peft is None:
                head = load_file(folder / "adapter_model.safetensors")
                model.load_state_dict(head, strict=False)
            else:
                with without_wrong_warnings():
                    model = PeftModel.from_pretrained(model, folder).get_base_model()
        return model.eval(), head

    def _is_of_head(self, model: Any, name: str) -> bool:
        """Return whether AutoModel leaves out a tensor: some classes give the trunk another pooler."""
        prefix = f"{model.base_model_prefix}."
        return not name.startswith(prefix) or name.removeprefix(prefix) not in self._trunk

    @functools.cached_property
    def _trunk(self) -> set[str]:
        return {name for name, _ in _load(self._tiny.folder, "AutoModel", 0, "eager").named_parameters()}

    def _forget_head(self, model: Any) -> None:
        if not hasattr(model, model.base_model_prefix):
            return
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if self._is_of_head(model, name):
                    parameter.fill_(torch.nan)

    def _feeds(self, row: TextSample) -> dict[str, Tensor]:
        ids = torch.tensor([row.ids])
        types = torch.tensor([row.type_ids])
        feeds = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": types}
        return {name: feeds[name] for name in self._tiny.spec.inputs}


# Enough for all tasks and label counts of one architecture.
@functools.lru_cache(maxsize=12)
def _load(folder: Path, auto: str, outputs: int, attention: str) -> Any:
    sized = {"num_labels": outputs} if outputs else {}
    return getattr(transformers, auto).from_pretrained(folder, attn_implementation=attention, **sized)


def move(model: nn.Module, size: float = 0.15) -> None:
    """Change whatever the adapter trains, factors by `size`, which is as much as a long training would."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            noise = torch.randn_like(parameter)
            if "ia3_l" in name or "magnitude" in name:
                parameter.mul_(1 + 0.2 * noise)
            else:
                # AdaLoRA's singular values begin at zero and end near 1.
                parameter.add_((1.0 if "lora_E" in name else size) * noise)


def _outputs_of(cell: Cell) -> int:
    outputs = TASKS[cell.task].outputs
    return 2 + list(KINDS).index(cell.kind) % 3 if outputs is None else outputs


def _raw(output: Any, head: dict[str, Tensor], pooler: bool) -> Tensor:
    if "start_logits" in output:
        return torch.stack([output.start_logits[0], output.end_logits[0]], dim=-1)
    if "logits" in output or pooler:
        raw: Tensor = (output.pooler_output if pooler else output.logits)[0]
        return raw
    vector = output.last_hidden_state[0].mean(dim=0)
    return nn.functional.linear(vector, head["head.weight"], head["head.bias"]) if head else vector
