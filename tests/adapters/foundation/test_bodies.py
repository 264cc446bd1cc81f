"""Models for embeddings: which foundations embed in one pass, and which files are refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from rootstock.adapters.foundation.architecture import describe
from rootstock.adapters.foundation.location import FoundationError, generates, locate
from tests.attacks.forge import tiny_bert
from tests.parity.foundations import make_tiny
from tests.parity.matrix import ARCHITECTURES


def change_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("model_type", "remedy"),
    [("new", "model_type is gte"), ("gemma3", "model_type is gemma3_text"), ("embedding_gemma2", "one of them")],
)
def test_a_body_that_does_not_fit_is_refused_with_the_reason_and_the_remedy(
    model_type: str, remedy: str, tmp_path: Path
) -> None:
    folder = tiny_bert(tmp_path / "model").folder
    change_config(folder, model_type=model_type)
    with pytest.raises(FoundationError, match=f"the architecture '{model_type}'.*{remedy}"):
        locate(str(folder))


def test_a_checkpoint_that_another_code_computes_is_refused_by_the_tensor_that_it_lacks(tmp_path: Path) -> None:
    """transformers would fill in random numbers for what such files lack."""
    folder = tiny_bert(tmp_path / "model").folder
    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if "pooler" not in name}
    save_file(kept, folder / "model.safetensors")
    describe(locate(str(folder)))
    lost = next(name for name in sorted(kept) if name.endswith("intermediate.dense.weight"))
    save_file({n: t for n, t in kept.items() if n != lost}, folder / "model.safetensors")
    with pytest.raises(FoundationError, match=rf"no tensor '{lost}' \(1 of .*trust_remote_code"):
        describe(locate(str(folder)))


def test_positions_that_depend_on_the_longest_text_of_a_batch_are_refused(tmp_path: Path) -> None:
    folder = make_tiny(ARCHITECTURES["nomic_bert"], tmp_path / "model").folder
    change_config(folder, rope_parameters={"rope_type": "dynamic", "rope_theta": 1000.0, "factor": 2.0})
    with pytest.raises(FoundationError, match="rope_type 'dynamic'"):
        describe(locate(str(folder)))


@pytest.mark.parametrize("name", ["bidirectional gemma3_text", "bidirectional qwen3"])
def test_a_decoder_in_which_each_token_sees_all_others_embeds_by_its_files_and_generates_nothing(
    name: str, tmp_path: Path
) -> None:
    folder = make_tiny(ARCHITECTURES[name], tmp_path / "model").folder
    files = locate(str(folder))
    spec = describe(files)
    assert not generates(files)
    assert (spec.own_tasks, spec.embedding.pooling) == (("feature-extraction",), "mean")
    kinds = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(kinds.items())
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_lasttoken": True}))
    prompts = {"prompts": {"query": "task: search result | query: "}, "default_prompt_name": "query"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    stated = describe(locate(str(folder))).embedding
    assert (stated.pooling, stated.normalize, stated.prefix) == ("last", True, prompts["prompts"]["query"])
    modules.insert(2, {"idx": 3, "name": "3", "path": "3_Dense", "type": "sentence_transformers.models.Dense"})
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(FoundationError, match=r"Dense' \(folder '3_Dense'\) is not served"):
        describe(locate(str(folder)))
