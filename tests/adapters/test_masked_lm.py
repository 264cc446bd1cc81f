"""A foundation fills masks if its checkpoint brings the whole head; its fingerprint is that of the trunk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForMaskedLM, BertForMaskedLM, BertForSequenceClassification

from rootstock.adapters.foundation.architecture import describe
from rootstock.adapters.foundation.location import FoundationFiles, fingerprint, heads_digest, locate
from rootstock.adapters.spec import FoundationSpec, MaskedLM
from tests.masked_lm import make_filling

Change = Callable[[dict[str, Tensor]], dict[str, Tensor]]


@pytest.fixture(scope="module")
def filling(tmp_path_factory: pytest.TempPathFactory) -> FoundationFiles:
    return locate(str(make_filling(tmp_path_factory.mktemp("filling") / "model").folder))


@pytest.fixture
def changed(filling: FoundationFiles, tmp_path: Path) -> Callable[[Change], FoundationFiles]:
    """The foundation with other tensors."""

    def make(change: Change) -> FoundationFiles:
        folder = shutil.copytree(filling.folder, tmp_path / "model")
        tensors = change(load_file(folder / "model.safetensors"))
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        return locate(str(folder))

    return make


def without(*ends: str) -> Change:
    return lambda tensors: {name: t for name, t in tensors.items() if not name.endswith(ends)}


def renamed(old: str, new: str) -> Change:
    return lambda tensors: {name.replace(old, new): t for name, t in tensors.items()}


def own(files: FoundationFiles) -> MaskedLM:
    head = describe(files).masked_lm
    assert head is not None
    return head


def test_the_head_of_a_checkpoint_is_found_and_written_down(filling: FoundationFiles) -> None:
    spec = describe(filling)
    assert spec.own_tasks == ("feature-extraction", "fill-mask")
    assert spec.masked_lm is not None
    assert (spec.masked_lm.class_name, spec.masked_lm.mask_id) == ("BertForMaskedLM", 103)
    assert FoundationSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert "fill-mask" not in spec.tasks


def test_a_checkpoint_without_it_or_without_a_part_of_it_fills_no_masks(
    foundation: FoundationFiles, changed: Callable[[Change], FoundationFiles]
) -> None:
    assert describe(foundation).own_tasks == ("feature-extraction",)
    assert heads_digest(foundation.folder) is None
    assert describe(changed(without("transform.LayerNorm.bias"))).masked_lm is None


def test_a_head_for_another_task_is_none(filling: FoundationFiles, tmp_path: Path) -> None:
    BertForSequenceClassification.from_pretrained(filling.folder).save_pretrained(tmp_path)
    shutil.copy(filling.folder / "tokenizer.json", tmp_path)
    assert heads_digest(tmp_path) is not None
    assert describe(locate(str(tmp_path))).masked_lm is None


def test_what_transformers_saves_of_the_class_has_its_head(filling: FoundationFiles, tmp_path: Path) -> None:
    BertForMaskedLM.from_pretrained(filling.folder).save_pretrained(tmp_path)
    shutil.copy(filling.folder / "tokenizer.json", tmp_path)
    assert own(locate(str(tmp_path))).class_name == "BertForMaskedLM"


@pytest.mark.parametrize(
    "change",
    [renamed("LayerNorm.weight", "LayerNorm.gamma"), renamed("predictions.bias", "predictions.decoder.bias")],
    ids=["old names of normalisation layers", "the other name of a tied bias"],
)
def test_the_names_that_transformers_takes_are_taken(
    changed: Callable[[Change], FoundationFiles], change: Change
) -> None:
    files = changed(change)
    assert own(files).class_name == "BertForMaskedLM"
    _, loading = BertForMaskedLM.from_pretrained(files.folder, output_loading_info=True)
    assert not loading["missing_keys"], "transformers takes it, too"


def test_an_untied_decoder_must_be_in_the_checkpoint(filling: FoundationFiles, tmp_path: Path) -> None:
    folder = shutil.copytree(filling.folder, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    assert describe(locate(str(folder))).masked_lm is None
    tensors = load_file(folder / "model.safetensors")
    tensors["cls.predictions.decoder.weight"] = torch.randn(30522, 32)
    tensors["cls.predictions.decoder.bias"] = tensors["cls.predictions.bias"].clone()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    assert describe(locate(str(folder))).masked_lm is not None


def test_checkpoints_with_one_trunk_and_other_heads_share_the_fingerprint_alone(
    filling: FoundationFiles, changed: Callable[[Change], FoundationFiles]
) -> None:
    other = changed(lambda tensors: {n: t + ("cls." in n) for n, t in tensors.items()})
    assert fingerprint(other.folder) == fingerprint(filling.folder)
    assert own(other).digest != own(filling).digest
    assert fingerprint(filling.folder) not in (own(filling).digest, own(other).digest)
    shutil.copytree(filling.folder, other.folder.parent / "same")
    assert own(locate(str(other.folder.parent / "same"))) == own(filling)


def test_the_mask_token_is_the_one_that_the_tokenizer_s_files_name(
    filling: FoundationFiles, changed: Callable[[Change], FoundationFiles]
) -> None:
    files = changed(lambda tensors: tensors)
    settings = files.folder / "tokenizer_config.json"
    settings.write_text(json.dumps({"mask_token": {"content": "[unused7]", "lstrip": False}}))
    head = own(files)
    assert head.mask_id == 8
    assert head.digest != own(filling).digest
    settings.write_text(json.dumps({"mask_token": "<nowhere>"}))
    assert describe(files).masked_lm is None


def test_deberta_s_newer_head_is_found_by_its_own_names(tmp_path: Path, foundation: FoundationFiles) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = AutoConfig.for_model("deberta-v2", vocab_size=30522, legacy=False, **sizes)
    AutoModelForMaskedLM.from_config(config).save_pretrained(tmp_path)
    shutil.copy(foundation.folder / "tokenizer.json", tmp_path)
    assert own(locate(str(tmp_path))).class_name == "DebertaV2ForMaskedLM"
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | {"legacy": True}))
    assert describe(locate(str(tmp_path))).masked_lm is None
