"""The foundation's task class with PEFT LoRA on it, and the same class with a saved adapter."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.architecture import describe
from adapters.bundle.peft_config import PeftConfig
from adapters.foundation import FoundationFiles
from adapters.spec import FoundationSpec, TaskClass
from training.errors import RecipeError
from training.recipe import RecipeFile, TaskType

if TYPE_CHECKING:
    from torch import nn

TASKS: dict[TaskType, str] = {"SEQ_CLS": "text-classification", "TOKEN_CLS": "token-classification"}


def foundation_spec(source: RecipeFile, files: FoundationFiles) -> FoundationSpec:
    """The foundation's spec; RecipeError where it cannot take the recipe's inputs."""
    spec = describe(files)
    length = source.recipe.training.max_length
    if length > spec.max_tokens:
        raise RecipeError(
            f"{source.path}: training.max_length: {length}; {spec.name} takes {spec.max_tokens} tokens"
        )
    return spec


def target_modules(source: RecipeFile, task_class: TaskClass) -> list[str]:
    """The recipe's target_modules as the sorted list that PEFT matches; `all-linear` becomes full names.

    RecipeError for a name that matches no linear module of the trunk, or one of the head.
    """
    wanted = source.recipe.peft.target_modules
    if wanted == "all-linear":
        return sorted(name for name in task_class.linears if name.startswith(task_class.prefix))
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


def head_modules(task_class: TaskClass) -> list[str]:
    """The modules of the head, by their attribute on the class: what PEFT's modules_to_save takes."""
    return sorted({name.split(".", 1)[0] for name in task_class.head})


def base_model(files: FoundationFiles, task_type: TaskType, labels: int) -> nn.Module:
    """A new fp32 model of the foundation's class for the task, its head freshly initialised."""
    _quieten()
    import torch
    from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

    auto: Any = AutoModelForSequenceClassification if task_type == "SEQ_CLS" else AutoModelForTokenClassification
    model: nn.Module = auto.from_pretrained(
        files.folder, num_labels=labels, dtype=torch.float32, use_safetensors=True, local_files_only=True
    )
    return model


def with_lora(base: nn.Module, source: RecipeFile, task_class: TaskClass) -> nn.Module:
    """The model with the recipe's LoRA sites; only they and the head train."""
    from peft import LoraConfig, get_peft_model

    settings = source.recipe.peft
    config = LoraConfig(
        task_type=source.recipe.task_type,
        r=settings.r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        use_rslora=settings.use_rslora,
        target_modules=target_modules(source, task_class),
        modules_to_save=head_modules(task_class),
    )
    with _known_warnings():
        model: nn.Module = get_peft_model(base, config)
    return model


def load_adapter(files: FoundationFiles, task_type: TaskType, labels: int, folder: Path) -> nn.Module:
    """A new model with the adapter that is saved in `folder`, as anyone who has its files loads it."""
    from peft import PeftModel

    with _known_warnings():
        model: nn.Module = PeftModel.from_pretrained(base_model(files, task_type, labels), folder)
    return model.eval()


def frozen_trunk(files: FoundationFiles) -> nn.Module:
    """The foundation alone, in fp32, for baselines."""
    _quieten()
    import torch
    from transformers import AutoModel

    model: nn.Module = AutoModel.from_pretrained(
        files.folder, dtype=torch.float32, use_safetensors=True, local_files_only=True
    )
    return model.eval()


@contextmanager
def _known_warnings() -> Iterator[None]:
    """Drop the one notice that peft 0.21 draws from transformers 5.23 by an attribute's old name."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield


def _quieten() -> None:
    """Keep transformers' notices (a head that is new, progress of loading) off the terminal."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
