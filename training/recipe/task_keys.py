"""The keys of a recipe that only some task types have."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

_TEXTS = ("SEQ_CLS",)
_IMAGES = ("image-classification",)
_AUDIO = ("audio-classification",)
_MEDIA = (*_IMAGES, *_AUDIO)
# The tasks with one label for each input.
_WHOLE = (*_TEXTS, *_MEDIA)
_TEXT_LABELS = ("SEQ_CLS", "TOKEN_CLS")
_LABELS = (*_TEXT_LABELS, *_MEDIA)
_CHATS = ("CAUSAL_LM",)
_GENERATED = ("CAUSAL_LM", "SEQ_2_SEQ_LM")
# An encoder–decoder model has two stacks, of which the layers of one have no place above those of the other.
_ONE_STACK = (*_LABELS, *_CHATS)
# By the key of a section, or the name of a whole section: the task types that have it.
_KEYS: dict[str, tuple[str, ...]] = {
    "problem_type": _TEXTS,
    "data.text_column": _TEXTS,
    "data.label_separator": _TEXTS,
    "data.label_columns": _TEXTS,
    "data.pair_column": _TEXTS,
    "data.image_folder": _IMAGES,
    "data.audio_folder": _AUDIO,
    "data.path_column": _MEDIA,
    "augmentation.image": _IMAGES,
    "augmentation.audio": _AUDIO,
    "augmentation.mixup_alpha": _WHOLE,
    "augmentation.token_dropout": _TEXT_LABELS,
    "augmentation.word_dropout": _TEXTS,
    "augmentation.word_swap": _TEXTS,
    "evaluation.out_of_scope": _TEXTS,
    "domain_adaptation": _TEXTS,
    "training.contrastive_epochs": _WHOLE,
    "data.label_column": _LABELS,
    "data.token_column": _TEXT_LABELS,
    "data.group_column": _LABELS,
    "data.conflicts": _LABELS,
    "data.splits.k_shot": _LABELS,
    "data.splits.choose_by": _LABELS,
    "augmentation": _LABELS,
    "evaluation.learning_curve": _LABELS,
    "evaluation.from_scratch": _LABELS,
    "peft.choose_strength": _LABELS,
    "training.head_learning_rate": _LABELS,
    "training.class_weights": _LABELS,
    "training.contrastive_weight": _LABELS,
    "training.contrastive_temperature": _LABELS,
    "training.label_names": _TEXT_LABELS,
    "training.max_length": (*_TEXT_LABELS, *_GENERATED),
    "training.ema_decay": _LABELS,
    "training.seeds": _LABELS,
    "training.cache_features": _LABELS,
    "data.messages_column": _CHATS,
    "data.folder_column": _GENERATED,
    "data.splits.train_rows": _GENERATED,
    "prompts": _GENERATED,
    "prompts.system_prompt": _CHATS,
    "prompts.chat_template": _CHATS,
    "generation": _GENERATED,
    "training.gradient_accumulation_steps": _GENERATED,
    "training.tokens_per_batch": _GENERATED,
    "training.gradient_checkpointing": _GENERATED,
    "training.layerwise_lr_decay": _ONE_STACK,
    "training.unfreeze_schedule": _ONE_STACK,
    "peft.layers_to_transform": _ONE_STACK,
}
# These may be set to their default.
_DEFAULTS_ALLOWED = ("domain_adaptation", "training.contrastive_epochs")


def check_keys(recipe: BaseModel, task_type: str) -> None:
    """Raise ValueError for a key that the recipe sets and its task type does not have."""
    for key, task_types in _KEYS.items():
        if task_type not in task_types and is_set(recipe, key):
            raise ValueError(f"{key} is for {' and '.join(task_types)}; task_type is {task_type}; leave it out")
    peft: Any = getattr(recipe, "peft")  # noqa: B009 - BaseModel has no such field
    data: Any = getattr(recipe, "data")  # noqa: B009
    if task_type in _MEDIA and data.path is not None and data.path_column is None:
        raise ValueError("data.path_column is missing: the column with the path of each row's file; add it")
    if task_type in _GENERATED and peft.method == "head_only":
        raise ValueError("peft.method: head_only is for classifiers; generated text has no head; use lora")


def drop_foreign_keys(value: dict[str, Any], task_type: str, hashed: bool = False) -> None:
    """Remove from a recipe, as JSON, the keys that its task type does not have.

    `hashed` keeps the keys that the hash of a recipe for a text classifier covers, whatever its task type.
    """
    for key, task_types in _KEYS.items():
        # Their values count in the hash and may be read again.
        if (
            key in _DEFAULTS_ALLOWED
            or task_type in task_types
            or (hashed and task_type in _LABELS and not set(task_types) <= {*_GENERATED, *_MEDIA})
        ):
            continue
        *sections, last = key.split(".")
        section: Any = value
        for name in sections:
            section = section.get(name) or {}
        section.pop(last, None)


def is_set(section: Any, key: str) -> bool:
    """Return True if a recipe sets a dotted key, for some keys only if to another value than their default."""
    *sections, last = key.split(".")
    for name in sections:
        section = getattr(section, name)
    if last not in section.model_fields_set:
        return False
    return key not in _DEFAULTS_ALLOWED or bool(getattr(section, last))
