"""The foundation's task class, what is grafted on it, and a trunk cut at the first layer that changes."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from rootstock.adapters.bundle.peft_config import PeftConfig
from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.adapters.spec import FoundationSpec, TaskClass
from rootstock.training.errors import RecipeError
from rootstock.training.recipe.recipe import Recipe, TaskType
from rootstock.training.recipe.recipe_file import RecipeFile

if TYPE_CHECKING:
    import torch
    from torch import nn

TASKS: dict[TaskType, str] = {"SEQ_CLS": "text-classification", "TOKEN_CLS": "token-classification"}
_DROPOUTS = (
    "hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "dropout", "attention_dropout",
    "seq_classif_dropout", "embedding_dropout", "mlp_dropout",
)  # fmt: skip


def target_modules(source: RecipeFile, task_class: TaskClass) -> list[str]:
    """The recipe's target_modules as the sorted list that PEFT matches; `all-linear` becomes full names.

    RecipeError for a name that matches no linear module of the trunk, or one of the head.
    """
    peft = source.recipe.peft
    wanted = peft.target_modules
    if wanted == "all-linear":
        # The pooler is read by no head that is trained here.
        inside = [n for n in task_class.linears if n.startswith(task_class.prefix)]
        return sorted(n for n in inside if not n.startswith(f"{task_class.prefix}pooler."))
    head = set(head_modules(task_class))
    for name in wanted:
        config = PeftConfig("LORA", source.recipe.task_type, {"target_modules": [name]})
        matched = config.targets(task_class)
        where = f"{source.path}: peft.target_modules: {name!r}"
        if not matched:
            known = sorted({n.rsplit(".", 1)[-1] for n in task_class.linears} - head)
            raise RecipeError(f"{where} matches no linear module; the last parts of names: {', '.join(known)}")
        if outside := [n for n in matched if not n.startswith(task_class.prefix)]:
            raise RecipeError(f"{where} matches {outside[0]} of the head, which is trained whole")
    return sorted(set(wanted))


def sites(source: RecipeFile, spec: FoundationSpec, task_class: TaskClass) -> list[str]:
    """The trunk's linear layers that the recipe's adapter changes, by their names in the trunk."""
    peft = source.recipe.peft
    values: dict[str, Any] = {"target_modules": target_modules(source, task_class)}
    named = PeftConfig("LORA", None, values).targets(task_class)
    inside = [name.removeprefix(task_class.prefix) for name in named]
    inside = [name for name in inside if not name.startswith("pooler.")]
    if peft.layers_to_transform is None:
        return inside
    where = f"{source.path}: peft.layers_to_transform"
    if not spec.layer_prefix:
        raise RecipeError(f"{where}: the layers of {spec.name} are one layer used again; leave it out")
    if (last := max(peft.layers_to_transform)) >= spec.layers:
        raise RecipeError(f"{where}: {last}; {spec.name} has the layers 0 to {spec.layers - 1}")
    layers = [n for n in inside if n.startswith(spec.layer_prefix)]
    found = [n for n in layers if spec.layer_of(n) in peft.layers_to_transform]
    if not found:
        raise RecipeError(f"{where}: target_modules names no linear module in these layers")
    return found


def head_modules(task_class: TaskClass) -> list[str]:
    """The modules of the head, by their attribute on the class: what PEFT's modules_to_save takes."""
    return sorted({name.split(".", 1)[0] for name in task_class.head})


def head_layers(task_class: TaskClass) -> list[str]:
    """The layers that a task class's own head is made of."""
    return sorted({name.rpartition(".")[0] for name in task_class.head})


def task_model(files: FoundationFiles, recipe: Recipe, labels: int, scratch: bool = False) -> nn.Module:
    """A new fp32 model of the foundation's class for the recipe's task, frozen; `scratch`: of random weights."""
    quieten()
    import torch
    from transformers import (
        AutoConfig,
        AutoModelForSequenceClassification,
        AutoModelForTokenClassification,
    )

    classes: Any = {"SEQ_CLS": AutoModelForSequenceClassification, "TOKEN_CLS": AutoModelForTokenClassification}
    auto = classes[recipe.task_type]
    config = AutoConfig.from_pretrained(files.folder)
    config.num_labels = labels
    if recipe.training.dropout is not None:
        for name in _DROPOUTS:
            if hasattr(config, name):
                setattr(config, name, recipe.training.dropout)
    if scratch:
        model: nn.Module = auto.from_config(config)
    else:
        model = auto.from_pretrained(
            files.folder, config=config, dtype=torch.float32, use_safetensors=True, local_files_only=True
        )
    return model.requires_grad_(False)


def grafted(model: nn.Module, recipe: Recipe, method: str, named: list[str], task_class: TaskClass) -> nn.Module:
    """The model with PEFT's layers at the modules `named`; they and a token head train.

    `method`: lora, dora or ia3. The file that `save_pretrained` writes then holds what a bundle holds, but for
    a linear head.
    """
    from peft import IA3Config, LoraConfig, get_peft_model

    peft = recipe.peft
    saved = head_modules(task_class) if recipe.task_type == "TOKEN_CLS" else None
    config: Any
    if method == "ia3":
        config = IA3Config(target_modules=named, feedforward_modules=[], modules_to_save=saved)
    else:
        config = LoraConfig(
            r=peft.r,
            lora_alpha=peft.lora_alpha,
            lora_dropout=peft.lora_dropout,
            use_rslora=peft.use_rslora,
            use_dora=method == "dora",
            target_modules=named,
            modules_to_save=saved,
        )
    with known_warnings():
        return cast("nn.Module", get_peft_model(cast(Any, model), config))


class GivenStates:
    """A trunk from one layer on: called with the states that go into that layer, it gives the last states.

    Shares the layers of the trunk it is made of. `depth` is how many layers are left out.
    """

    def __init__(self, trunk: nn.Module, spec: FoundationSpec, depth: int) -> None:
        self.depth = depth
        self._cut = _cut(trunk, spec, depth)

    def __call__(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(rows, tokens, width) and its mask (rows, tokens) → (rows, tokens, width)."""
        output = self._cut(inputs_embeds=states, attention_mask=mask)
        return cast("torch.Tensor", output.last_hidden_state)


def can_cut(spec: FoundationSpec) -> bool:
    """Whether the trunk's layers are a list that can begin anywhere."""
    return bool(spec.layer_prefix)


def states_into(trunk: nn.Module, spec: FoundationSpec, depth: int, inputs: dict[str, Any]) -> torch.Tensor:
    """The states that go into layer `depth` (the trunk's output, for as many as there are layers)."""
    if depth >= spec.layers:
        return cast("torch.Tensor", trunk(**inputs).last_hidden_state)
    layer = trunk.get_submodule(f"{spec.layer_prefix}{depth}")

    def stop(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        raise _Reached(args[0] if args else kwargs["hidden_states"])

    hook = layer.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        trunk(**inputs)
    except _Reached as reached:
        return reached.states
    finally:
        hook.remove()
    raise RuntimeError(f"{type(trunk).__name__} does not call its layer {depth}")


class _Reached(Exception):
    def __init__(self, states: torch.Tensor) -> None:
        super().__init__()
        self.states = states


def _cut(trunk: nn.Module, spec: FoundationSpec, depth: int) -> nn.Module:
    """A shallow copy of the trunk without its embeddings and first layers; the modules left are shared."""
    from torch import nn

    class TrunkInputs(nn.Module):
        def forward(self, *_: Any, inputs_embeds: Any = None, **__: Any) -> Any:
            return inputs_embeds

    path = spec.layer_prefix.rstrip(".").split(".")
    view = _shallow(trunk)
    view._modules["embeddings"] = TrunkInputs()
    if "pooler" in view._modules:
        view._modules["pooler"] = None
    inner = view
    for name in path[:-1]:
        inner._modules[name] = _shallow(cast("nn.Module", inner._modules[name]))
        inner = cast("nn.Module", inner._modules[name])
    layers = cast("nn.ModuleList", inner._modules[path[-1]])
    inner._modules[path[-1]] = nn.ModuleList(list(layers)[depth:])
    return view


def _shallow(module: nn.Module) -> nn.Module:
    copied = copy.copy(module)
    copied._modules = dict(module._modules)
    return copied


@contextmanager
def known_warnings() -> Iterator[None]:
    """Drop what peft 0.21 and transformers 5.23 are known to warn of: an attribute's old name."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield


def quieten() -> None:
    """Keep transformers' notices (a head that is new, progress of loading) off the terminal."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
