"""Each kind of adapter that is read as it is: PEFT's own outputs are those of our updates on the bare model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel

from rootstock.adapters.bundle import Limits, open_bundle
from rootstock.adapters.foundation.architecture import describe
from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.adapters.foundation.weights import FoundationWeights
from rootstock.adapters.spec import Adapter, AdapterWeights, FoundationSpec
from tests.attacks.forge import WORDS, save_tokenizer, tiny_bert
from tests.peft_adapters import PeftAdapter, close, peft_model, save_adapter
from tests.reference_graft import grafted

KEYS = ("logits", "last_hidden_state", "pooler_output")
INPUTS = [[2, 6, 7, 8, 3], [2, 14, 3], [2, 9, 25, 38, 6, 10, 10, 12, 3]]
E0 = "bert.encoder.layer.0.attention.self.query.lora_E"
E1 = "bert.encoder.layer.1.attention.self.value.lora_E"
FEW, NONE, SOME = [True] + [False] * 11, [False] * 12, [True, False, False] * 4
KINDS: dict[str, dict[str, Any]] = {
    "lora": {"lora_alpha": 32},
    "lora-top-layer": {"layers_to_transform": [2], "lora_alpha": 32},
    "lora-fan-in-fan-out": {"fan_in_fan_out": True},
    "lora-mica": {"init_lora_weights": "mica", "lora_alpha": 32},
    "lora-bias": {"lora_bias": True, "lora_alpha": 32},
    "lora-block-diagonal": {
        "lora_alpha": 32,
        "use_bdlora": {"target_modules_bd_a": ["query"], "target_modules_bd_b": ["layer.1.attention.self.value"],
                       "nblocks": 2, "match_strict": False},
    },
    "lora-parameters": {
        "target_modules": ["query"], "target_parameters": ["value.weight", "layer.0.output.dense.weight"],
        "rank_pattern": {"value.weight": 3, "query": 5, "output.dense": 7}, "lora_alpha": 32,
    },
    "lora-parameters-alone": {"target_modules": [], "target_parameters": ["key.weight"], "lora_alpha": 32},
    "lora-velora": {"velora_config": {"num_groups": 4}, "lora_alpha": 32},
    "lora-monteclora": {"monteclora_config": {}, "lora_alpha": 32},
    "lora-only-biases": {"bias": "lora_only", "target_modules": ["query", "output.dense"]},
    "all-biases": {"bias": "all"},
    "all-biases-and-pooler": {"bias": "all", "modules_to_save": ["classifier", "pooler"]},
    "pooler": {"modules_to_save": ["classifier", "pooler"]},
    "pooler-by-layer": {"modules_to_save": ["classifier", "pooler.dense"], "target_modules": "all-linear"},
    "dora": {"use_dora": True, "target_modules": "all-linear"},
    "dora-rslora-patterns": {"use_dora": True, "use_rslora": True, "rank_pattern": {"layer.1.*query": 3}},
    "dora-only-biases": {"use_dora": True, "bias": "lora_only", "target_modules": ["dense"]},
    "dora-all-biases": {"use_dora": True, "bias": "all"},
    "ia3": {"kind": "IA3"},
    "ia3-feedforward": {
        "kind": "IA3", "target_modules": ["key", "output.dense"], "feedforward_modules": ["output.dense"],
    },
    "ia3-pattern": {
        "kind": "IA3", "target_modules": r".*\.(query|dense)", "feedforward_modules": r".*r\.[01]\.output\.dense",
    },
    "ia3-suffix": {"kind": "IA3", "target_modules": r".*\.dense", "feedforward_modules": ["put.dense"]},
    "ia3-all-linear": {"kind": "IA3", "target_modules": "all-linear", "feedforward_modules": []},
    "ln": {"kind": "LN_TUNING", "target_modules": ["LayerNorm"]},
    "ln-pattern": {
        "kind": "LN_TUNING", "target_modules": r".*layer\.[02]\.output\.LayerNorm",
        "modules_to_save": ["classifier"],
    },
    "norms-saved-whole": {"modules_to_save": ["classifier", "output.LayerNorm", "pooler"], "bias": "all"},
    "adalora": {"kind": "ADALORA", "lora_alpha": 32},
    "adalora-allocated": {"kind": "ADALORA", "lora_alpha": 32, "rank_pattern": {E0: FEW, E1: NONE}},
    "adalora-alpha-zero": {"kind": "ADALORA", "lora_alpha": 0, "rank_pattern": {E0: SOME}},
    "adalora-all-biases": {"kind": "ADALORA", "bias": "all", "lora_alpha": 32},
}  # fmt: skip
CASES = [("SEQ_CLS", name) for name in KINDS] + [
    ("TOKEN_CLS", "dora-all-biases"), ("TOKEN_CLS", "ia3-pattern"), ("TOKEN_CLS", "adalora-all-biases"),
]  # fmt: skip
# Names without the task class's prefix.
HEADLESS: dict[str, dict[str, Any]] = {
    "all-biases-and-pooler": {"bias": "all", "modules_to_save": ["pooler"], "use_dora": True},
    "ia3": {"kind": "IA3", "target_modules": ["query", "output.dense"], "feedforward_modules": ["output.dense"]},
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> FoundationFiles:
    """With weights and biases large enough to see what an adapter does to them."""
    files = tiny_bert(tmp_path_factory.mktemp("tiny"), initializer_range=0.2)
    model = AutoModel.from_pretrained(files.folder)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".bias"):
                parameter.normal_(0, 0.2)
    model.save_pretrained(files.folder)
    return files


@pytest.fixture(scope="module")
def spec(tiny: FoundationFiles) -> FoundationSpec:
    return describe(tiny)


def read(files: FoundationFiles, spec: FoundationSpec, saved: PeftAdapter) -> Adapter:
    base = FoundationWeights(files.folder, spec.model_type)
    return open_bundle(saved.zip(), Limits(), spec).adapter(spec, Limits().max_rank, base)


def outputs(model: Any) -> list[np.ndarray]:
    """Every raw output of the model for each input."""
    with torch.no_grad():
        given = [model(input_ids=torch.tensor([ids])) for ids in INPUTS]
    return [o.numpy() for out in given for o in (out[k] for k in out if k in KEYS)]


def check(files: FoundationFiles, spec: FoundationSpec, saved: PeftAdapter) -> Adapter:
    adapter = read(files, spec, saved)
    expected = outputs(peft_model(files.folder, saved))
    actual = outputs(grafted(files.folder, spec, adapter))
    assert all(close(a, e) for a, e in zip(actual, expected, strict=True))
    without = Adapter(**{**vars(adapter), "weights": AdapterWeights({}, adapter.weights.head)})
    bare = outputs(grafted(files.folder, spec, without))
    assert max(np.abs(b - e).max() for b, e in zip(bare, expected, strict=True)) > 2e-3, "the updates do nothing"
    return adapter


@pytest.mark.parametrize(("task_type", "name"), CASES)
def test_our_updates_on_the_bare_model_give_peft_s_outputs(
    tiny: FoundationFiles, spec: FoundationSpec, tmp_path: Path, task_type: str, name: str
) -> None:
    check(tiny, spec, save_adapter(tiny.folder, tmp_path, task_type, 3, **KINDS[name]))


def test_a_module_of_which_adalora_kept_nothing_is_the_foundation_s(
    tiny: FoundationFiles, spec: FoundationSpec, tmp_path: Path
) -> None:
    adapter = read(tiny, spec, save_adapter(tiny.folder, tmp_path, "SEQ_CLS", 3, **KINDS["adalora-allocated"]))
    sites = adapter.weights.sites
    assert sites["encoder.layer.0.attention.self.query"].rank == 1
    assert E1.removeprefix("bert.").removesuffix(".lora_E") not in sites
    assert len(sites) == 5


@pytest.mark.parametrize("name", HEADLESS)
def test_our_updates_give_peft_s_hidden_states(
    tiny: FoundationFiles, spec: FoundationSpec, tmp_path: Path, name: str
) -> None:
    check(tiny, spec, save_adapter(tiny.folder, tmp_path, "FEATURE_EXTRACTION", 3, **HEADLESS[name]))


ARCHITECTURES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "distilbert": ("DistilBertConfig", {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48},
                   {"bias": "all", "use_dora": True, "target_modules": ["q_lin", "v_lin"]}),
    "albert": ("AlbertConfig", {"embedding_size": 16, "intermediate_size": 48},
               {"bias": "all", "use_dora": True, "target_modules": ["ffn"], "modules_to_save": ["pooler"]}),
    "gpt2": ("GPT2Config", {"n_embd": 32, "n_layer": 2, "n_head": 2},
             {"bias": "all", "use_dora": True, "target_modules": ["c_attn", "c_proj"]}),
    "gpt2-ia3": ("GPT2Config", {"n_embd": 32, "n_layer": 2, "n_head": 2},
                 {"kind": "IA3", "target_modules": ["c_attn", "c_proj"], "feedforward_modules": ["c_proj"]}),
}  # fmt: skip


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_other_architectures_modules_and_weights_are_found(name: str, tmp_path: Path) -> None:
    import transformers

    torch.manual_seed(0)
    config_name, sizes, adapter = ARCHITECTURES[name]
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2, **sizes}
    config = getattr(transformers, config_name)(vocab_size=len(WORDS), initializer_range=0.2, **sizes)
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path / "base")
    save_tokenizer(tmp_path / "base", WORDS)
    files = FoundationFiles(tmp_path / "base", name, None)
    saved = save_adapter(files.folder, tmp_path / "saved", "FEATURE_EXTRACTION", 3, **adapter)
    check(files, describe(files), saved)


def spelt(name: str, spelling: str) -> dict[str, float]:
    """What else PEFT takes for a tensor: the names, and the factor of each.

    "named" holds the adapter's own name, as a model's whole state does; "copies" is what PEFT does not run.
    """
    if spelling == "named":
        name = name.replace("_magnitude_vector", "_magnitude_vector.default.weight")
        return {re.sub(r"(\.lora_[ABE]|\.ia3_l)(?=\.weight$|\.bias$|$)", r"\1.default", name): 1}
    copies = ("original_module", "modules_to_save.default") if "classifier." in name else ()
    return {name: 1} | {name.replace("classifier.", f"classifier.{copy}."): 0 for copy in copies}


@pytest.mark.parametrize("spelling", ["named", "copies"])
@pytest.mark.parametrize("kind", ["lora-bias", "dora", "ia3", "adalora"])
def test_other_spellings_of_an_adapter_are_read_as_peft_reads_them(
    tiny: FoundationFiles, spec: FoundationSpec, tmp_path: Path, spelling: str, kind: str
) -> None:
    from safetensors.numpy import load_file, save_file

    saved = save_adapter(tiny.folder, tmp_path, "SEQ_CLS", 3, **KINDS[kind])
    expected = outputs(peft_model(tiny.folder, saved))
    path = tmp_path / "adapter_model.safetensors"
    tensors = load_file(path)
    others = {
        other: np.array(tensor * factor)
        for name, tensor in tensors.items()
        for other, factor in spelt(name, spelling).items()
    }
    assert others.keys() != tensors.keys()
    save_file(others, path)
    adapter = read(tiny, spec, saved)
    ours = outputs(grafted(tiny.folder, spec, adapter))
    theirs = outputs(peft_model(tiny.folder, saved))
    for actual, again, first in zip(ours, theirs, expected, strict=True):
        assert close(again, first)
        assert close(actual, first)


def test_a_dora_magnitude_of_zero_leaves_the_bias_alone_as_in_peft(
    tiny: FoundationFiles, spec: FoundationSpec, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file, save_file

    saved = save_adapter(tiny.folder, tmp_path, "SEQ_CLS", 3, use_dora=True)
    path = tmp_path / "adapter_model.safetensors"
    tensors = load_file(path)
    for name in [n for n in tensors if "magnitude" in n]:
        tensors[name] = np.zeros_like(tensors[name])
    save_file(tensors, path)
    adapter = check(tiny, spec, saved)
    assert not any(update.b.any() for update in adapter.weights.sites.values())


def test_every_array_of_an_adapter_is_a_view_of_one_fp32_array(
    tiny: FoundationFiles, spec: FoundationSpec, tmp_path: Path
) -> None:
    saved = save_adapter(tiny.folder, tmp_path, "SEQ_CLS", 3, **KINDS["dora-all-biases"])
    weights = read(tiny, spec, saved).weights
    arrays = [a for u in weights.sites.values() for a in u.arrays()] + list(weights.head.values())
    [whole] = {id(a.base): a.base for a in arrays}.values()
    assert whole.dtype == np.float32
    assert whole.ndim == 1
    assert all(a.flags.c_contiguous for a in arrays)
    assert sum(a.size for a in arrays) <= whole.size < sum(a.size + 16 for a in arrays)
    assert not any(np.shares_memory(a, b) for i, a in enumerate(arrays) for b in arrays[:i] if a.size and b.size)


def test_a_pooler_saved_whole_is_served_beyond_the_rank_limit_and_counts_in_the_size(
    tiny: FoundationFiles, spec: FoundationSpec, tmp_path: Path
) -> None:
    saved = save_adapter(tiny.folder, tmp_path, "SEQ_CLS", 3, modules_to_save=["classifier", "pooler"], r=4)
    base = FoundationWeights(tiny.folder, "bert")
    weights = open_bundle(saved.zip(), Limits(), spec).adapter(spec, 4, base).weights
    assert weights.sites["pooler.dense"].rank == spec.hidden_size
    assert weights.nbytes >= 2 * 4 * spec.hidden_size**2


def test_biases_that_were_not_trained_change_no_module(
    tiny: FoundationFiles, spec: FoundationSpec, tmp_path: Path
) -> None:
    """So that an adapter of the upper layers shares the lower ones, whatever its file repeats of them."""
    from safetensors.numpy import load_file, save_file

    saved = save_adapter(tiny.folder, tmp_path, "SEQ_CLS", 3, bias="all", layers_to_transform=[2])
    base = FoundationWeights(tiny.folder, "bert")
    path, prefix = tmp_path / "adapter_model.safetensors", "base_model.model.bert."
    tensors = load_file(path)
    for name in [n for n in tensors if n.startswith(prefix) and "layer.2" not in n]:
        original = base.bias(name.removeprefix(prefix).removesuffix(".bias"))
        assert original is not None
        tensors[name] = np.array(original)
    save_file(tensors, path)
    sites = read(tiny, spec, saved).weights.sites
    assert all("layer.2" in site for site in sites)
    assert spec.depth(sites) == 2
