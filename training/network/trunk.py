"""The foundation's task class, PEFT's layers on it, and a trunk cut at the first layer that changes."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from rootstock.adapters.bundle.peft_config import PeftConfig
from rootstock.adapters.spec import FoundationSpec, TaskClass
from rootstock.training.errors import RecipeError
from rootstock.training.network.network_spec import NetworkSpec
from rootstock.training.recipe.recipe import Peft

if TYPE_CHECKING:
    import torch
    from torch import nn

_DROPOUTS = (
    "hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "dropout", "attention_dropout",
    "seq_classif_dropout", "embedding_dropout", "mlp_dropout", "dropout_rate", "activation_dropout",
)  # fmt: skip


def target_modules(names: str | list[str], task_class: TaskClass, origin: str) -> list[str]:
    """Return target_modules as the sorted list that PEFT matches; `all-linear` becomes full names.

    Raise RecipeError for a name that matches no linear module of the trunk, or one of the head. The message
    begins with `origin`, the recipe's file.
    """
    if isinstance(names, str):
        # No head that is trained here reads the pooler.
        inside = [n for n in task_class.linears if n.startswith(task_class.prefix)]
        return sorted(n for n in inside if not n.startswith(f"{task_class.prefix}pooler."))
    head = set(head_modules(task_class))
    for name in names:
        matches = PeftConfig("LORA", None, {"target_modules": [name]}).targets(task_class)
        where = f"{origin}: peft.target_modules: {name!r}"
        if not matches:
            known = sorted({n.rsplit(".", 1)[-1] for n in task_class.linears} - head)
            raise RecipeError(f"{where} matches no linear module; use one of: {', '.join(known)}")
        if outside := [n for n in matches if not n.startswith(task_class.prefix)]:
            raise RecipeError(f"{where} matches {outside[0]} of the head, which trains anyway; leave it out")
    return sorted(set(names))


def sites(peft: Peft, spec: FoundationSpec, task_class: TaskClass, origin: str) -> list[str]:
    """Return the trunk's linear layers that an adapter changes, by their names in the trunk.

    Convolutions are among them if the recipe names them, and with `all-linear` if the trunk has nothing else.
    Raise RecipeError as `target_modules` does, and for layers that the foundation lacks.
    """
    values: dict[str, Any] = {"target_modules": target_modules(peft.target_modules, task_class, origin)}
    matches = PeftConfig("LORA", None, values).targets(task_class)
    inside = [name.removeprefix(task_class.prefix) for name in matches]
    inside = [name for name in inside if not name.startswith("pooler.")]
    if isinstance(peft.target_modules, str):
        # A trunk of convolutions alone has no other module to change.
        inside = [name for name in inside if name not in spec.convolutions] or inside
    if peft.layers_to_transform is None:
        return inside
    where = f"{origin}: peft.layers_to_transform"
    if not spec.layer_prefix:
        raise RecipeError(f"{where}: all layers of {spec.name} share the weights of one; leave the key out")
    if (last := max(peft.layers_to_transform)) >= spec.layers:
        raise RecipeError(f"{where}: {last} is too high; {spec.name} has the layers 0 to {spec.layers - 1}")
    layers = [n for n in inside if n.startswith(spec.layer_prefix)]
    chosen = [n for n in layers if spec.layer_of(n) in peft.layers_to_transform]
    if not chosen:
        raise RecipeError(f"{where}: peft.target_modules matches no linear module in these layers; change either")
    return chosen


def head_modules(task_class: TaskClass) -> list[str]:
    """Return the modules of the head by their attribute on the class, as PEFT's modules_to_save takes them."""
    return sorted({name.split(".", 1)[0] for name in task_class.head})


def head_layers(task_class: TaskClass) -> list[str]:
    """Return the layers that the head of a task class consists of."""
    return sorted({name.rpartition(".")[0] for name in task_class.head})


def task_model(spec: NetworkSpec, random: bool = False) -> nn.Module:
    """Return a new frozen fp32 model of the foundation's class for the task; `random`: with random weights."""
    silence_transformers()
    import torch
    from transformers import (
        AutoConfig,
        AutoModelForAudioClassification,
        AutoModelForCausalLM,
        AutoModelForImageClassification,
        AutoModelForSeq2SeqLM,
        AutoModelForSequenceClassification,
        AutoModelForTokenClassification,
    )

    classes: Any = {
        "text-classification": AutoModelForSequenceClassification,
        "token-classification": AutoModelForTokenClassification,
        "text-generation": AutoModelForCausalLM,
        "text2text-generation": AutoModelForSeq2SeqLM,
        "image-classification": AutoModelForImageClassification,
        "audio-classification": AutoModelForAudioClassification,
    }
    auto = classes[spec.task_class.task]
    config = AutoConfig.from_pretrained(spec.files.folder)
    if spec.labels:
        config.num_labels = spec.labels
    if spec.dropout is not None:
        for name in _DROPOUTS:
            if hasattr(config, name):
                setattr(config, name, spec.dropout)
    if random:
        model: nn.Module = auto.from_config(config)
    else:
        model = auto.from_pretrained(
            spec.files.folder, config=config, dtype=torch.float32, use_safetensors=True, local_files_only=True
        )
    return model.requires_grad_(False)


def graft(model: nn.Module, spec: NetworkSpec, method: str) -> nn.Module:
    """Return the model with PEFT's layers at the modules of `spec`. They train, and so does a token head.

    `method`: lora, dora or ia3. The file that `save_pretrained` writes then holds everything that a bundle holds
    except a linear head.
    """
    from peft import IA3Config, LoraConfig, get_peft_model

    peft = spec.peft
    head = None if spec.linear_head else head_modules(spec.task_class) or None
    config: Any
    if method == "ia3":
        config = IA3Config(target_modules=spec.modules, feedforward_modules=[], modules_to_save=head)
    else:
        config = LoraConfig(
            r=peft.r,
            lora_alpha=peft.lora_alpha,
            lora_dropout=peft.lora_dropout,
            use_rslora=peft.use_rslora,
            use_dora=method == "dora",
            target_modules=spec.modules,
            modules_to_save=head,
        )
    with known_warnings():
        return cast("nn.Module", get_peft_model(cast(Any, model), config))


class UpperTrunk:
    """The upper part of a trunk: called with the states that go into a layer, it returns the last states.

    It shares its layers with the whole trunk. `depth` is the number of layers left out.
    """

    def __init__(self, trunk: nn.Module, spec: FoundationSpec, depth: int) -> None:
        self.depth = depth
        self._cut = _cut(trunk, spec, depth)

    def __call__(self, states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Return the last states for `states`, both (rows, tokens, width), and their mask (rows, tokens).

        Images and recordings have no mask.
        """
        output = self._cut(states) if mask is None else self._cut(inputs_embeds=states, attention_mask=mask)
        return cast("torch.Tensor", output.last_hidden_state)


def can_cut(trunk: nn.Module, spec: FoundationSpec) -> bool:
    """Return True if the trunk has embeddings and then a list of layers, which can start at any of them."""
    return bool(spec.layer_prefix) and "embeddings" in dict(trunk.named_children())


def states_into(trunk: nn.Module, spec: FoundationSpec, depth: int, inputs: dict[str, Any]) -> torch.Tensor:
    """Return the states that go into layer `depth`, or the trunk's output if it has no layer `depth`."""
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
    """Return a shallow copy of the trunk without its embeddings and first layers; the rest is shared."""
    from torch import nn

    path = spec.layer_prefix.rstrip(".").split(".")
    view = _shallow(trunk)
    # Some trunks read their embeddings' number type, so the stand-in keeps the layers of the embeddings.
    inputs = _shallow(cast("nn.Module", view._modules["embeddings"]))
    inputs.forward = lambda *values, inputs_embeds=None, **_: values[0] if values else inputs_embeds
    view._modules["embeddings"] = inputs
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
    view = copy.copy(module)
    view._modules = dict(module._modules)
    return view


@contextmanager
def known_warnings() -> Iterator[None]:
    """Drop known warnings of peft 0.21 and transformers 5.23 that no user can act on."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        warnings.filterwarnings("ignore", "`gradient_checkpointing_enable` is deprecated", FutureWarning)
        # PEFT corrects the option by the module's class.
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to", UserWarning)
        yield


def silence_transformers() -> None:
    """Keep transformers' notices (a new head, progress of loading) off the terminal."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
