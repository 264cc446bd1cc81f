"""Composes adapters with PEFT's own `add_weighted_adapter`: the oracle of compositions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peft import PeftModel
from peft.utils.other import ModulesToSaveWrapper

from tests.peft_adapters import CLASSES, PeftAdapter, without_wrong_warnings


def peft_composition(foundation: Path, parts: Sequence[tuple[PeftAdapter, float]], head: int = 0) -> Any:
    """Return PEFT's model of weighted adapters of one task type, with the head of one of them."""
    answering = parts[head][0]
    sized = {"num_labels": answering.labels} if answering.labels else {}
    base = CLASSES[answering.task_type].from_pretrained(foundation, **sized)
    names = [f"part{i}" for i in range(len(parts))]
    with without_wrong_warnings():
        model = PeftModel.from_pretrained(base, answering.folder, adapter_name=names[head])
        for name, (part, _) in zip(names, parts, strict=True):
            if name != names[head]:
                model.load_adapter(part.folder, name)
        wrappers = [module for module in model.modules() if isinstance(module, ModulesToSaveWrapper)]
        for wrapper in wrappers:
            # PEFT adds no heads up, so it takes one adapter that has any.
            for name in names:
                if name != names[head]:
                    wrapper.modules_to_save.pop(name)
        # The whole takes the rule of scaling and the layers of the first, so a part of all layers that is no
        # rsLoRA comes first. The order does not change the sum.
        order = sorted(range(len(parts)), key=lambda i: _is_narrow(model.peft_config[names[i]]))
        ordered, weights = [names[i] for i in order], [parts[i][1] for i in order]
        model.add_weighted_adapter(ordered, weights, "whole", combination_type="cat")
        for wrapper in wrappers:
            wrapper.modules_to_save["whole"] = wrapper.modules_to_save[names[head]]
        model.set_adapter("whole")
    return model.eval()


def _is_narrow(config: Any) -> bool:
    return bool(config.use_rslora) or config.layers_to_transform is not None
