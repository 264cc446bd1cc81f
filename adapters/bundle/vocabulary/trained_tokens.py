"""Reads which tokens an adapter trained, and in which layers, from its config."""

from __future__ import annotations

from collections.abc import Mapping

from rootstock.adapters.bundle.kinds.methods import wrong_option
from rootstock.adapters.bundle.peft_config import PeftConfig, ends_in
from rootstock.adapters.language_model import VocabularyLayer
from rootstock.adapters.spec import FoundationSpec, TaskClass


def trained_tokens(
    config: PeftConfig, task_class: TaskClass, foundation: FoundationSpec, output: VocabularyLayer | None
) -> dict[str, list[int]]:
    """Return by layer the ids of the tokens that were trained alone, as the config states them.

    The layers are the word embedding and `output`, by their full names. Raise Rejected (check "schema") for
    another layer and for an id that is there twice.
    """
    key = "token_indices" if config.peft_type == "TRAINABLE_TOKENS" else "trainable_token_indices"
    stated = config.values.get(key)
    if stated is None or stated in ([], {}):
        return {}
    table = foundation.words
    if table is None:
        raise wrong_option(key, f"{foundation.name} has no word embedding whose rows an adapter can change")
    words = f"{task_class.prefix}{table.name}"
    trained: dict[str, list[int]] = {}
    if isinstance(stated, Mapping):
        for name, ids in stated.items():
            trained[_layer(name, words, output, config, key)] = list(ids)
    elif config.peft_type == "TRAINABLE_TOKENS" and not config.targets_words(config.written(words)):
        option = config.values.get("target_modules")
        raise wrong_option("target_modules", f"{option!r} is not the word embedding, {config.written(words)}")
    else:
        trained[words] = list(stated)
    if output is not None and output.tied and words in trained:
        # PEFT trains one row of both, and its file may hold it twice.
        trained.setdefault(output.name, trained[words])
    for ids in trained.values():
        if len(set(ids)) != len(ids):
            raise wrong_option(key, "a token is there twice")
    return trained


def _layer(name: str, words: str, output: VocabularyLayer | None, config: PeftConfig, key: str) -> str:
    """Return the full name of the layer that a config means by a name."""
    layers = [words] if output is None else [words, output.name]
    for layer in layers:
        if ends_in(config.written(layer), [name]):
            return layer
    also = "" if output is None else f" or the output layer, {output.name}"
    message = f"{name!r} is not the word embedding, {config.written(words)}{also}; train its tokens alone"
    raise wrong_option(key, message)
