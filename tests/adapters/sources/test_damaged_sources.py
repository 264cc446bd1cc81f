"""Damaged and hostile files of models: one error that names the fault, and nothing outside the folder is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import rootstock.adapters
from rootstock.adapters.errors import SourceError
from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.adapters.sources.kinds import open_source
from rootstock.adapters.sources.source_bundle import SourceBundle
from tests.tiny_models import WIDTH, save_tuned_encoder


@pytest.mark.parametrize("path", ["../outside", "1_Pooling/../../outside", "absolute"])
def test_a_module_outside_the_model_s_folder_is_not_read(
    tiny: FoundationFiles, tmp_path: Path, path: str
) -> None:
    folder = save_tuned_encoder(tiny.folder, tmp_path / "tuned")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "config.json").write_text('{"key": "a secret"}')
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["path"] = str(tmp_path / "outside") if path == "absolute" else path
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(SourceError, match=r"the module's folder '.*outside' is outside the model's") as caught:
        open_source(folder, True, False)
    assert "a secret" not in str(caught.value)


def restate(file: Path, **values: Any) -> None:
    """Change some values of a JSON file."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"architectures": {"a": "b"}}, "the model's class is None; on tiny"),
        ({"architectures": 7}, "the model's class is None; on tiny"),
        ({"num_hidden_layers": 100000}, "num_hidden_layers is 100000 in .*tuned, and 2 in tiny"),
        ({"vocab_size": 10**9}, "vocab_size is 1000000000 in .*tuned, and 400 in tiny"),
        ({"model_type": 7}, "tuned cannot be converted: "),
    ],
)
def test_a_strange_config_is_refused_before_the_model_is_built(
    tuned: Callable[..., Path], convert: Callable[..., SourceBundle], config: dict[str, Any], said: str
) -> None:
    folder = tuned()
    restate(folder / "config.json", **config)
    with pytest.raises(SourceError, match=said):
        convert(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_named(
    tuned: Callable[..., Path], convert: Callable[..., SourceBundle], value: float
) -> None:
    folder, name = tuned(), "bert.encoder.layer.1.output.dense.weight"
    tensors = load_file(folder / "model.safetensors")
    tensors[name][0, 0] = torch.tensor(value)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(SourceError, match=f"{name} holds NaN or infinity in .*tuned"):
        convert(folder)


def test_a_damaged_tokenizer_is_refused(tuned: Callable[..., Path], convert: Callable[..., SourceBundle]) -> None:
    folder = tuned()
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(SourceError, match=r"tuned/tokenizer.json cannot be read: "):
        convert(folder)


def test_a_prompt_that_is_not_valid_unicode_is_refused(
    tiny: FoundationFiles, tmp_path: Path, convert: Callable[..., SourceBundle]
) -> None:
    folder = save_tuned_encoder(tiny.folder, tmp_path / "tuned")
    restate(folder / "config_sentence_transformers.json", prompts={"p": "\ud800"}, default_prompt_name="p")
    with pytest.raises(SourceError, match="tuned cannot be converted: "):
        convert(folder)


def test_a_head_whose_outputs_overflow_is_refused(tiny: FoundationFiles) -> None:
    coef = np.full((2, WIDTH), 3e38) * np.where(np.arange(WIDTH) % 2, 1, -1)
    with pytest.raises(SourceError, match="an output of the model is NaN or infinity in fp32"):
        rootstock.adapters.head(coef, [0.0, 3e38], ["a", "b"], foundation=str(tiny.folder))
