"""Plain PEFT folders as users have them: whose base they name, what lies beside them, and why one is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast, Trainer, TrainingArguments

from rootstock.adapters.bundle import PlainFields, open_bundle, pack
from rootstock.adapters.bundle.archive import CONFIG, MANIFEST, MEMBERS, WEIGHTS
from rootstock.adapters.bundle.plain.base_model import is_same
from rootstock.adapters.client.errors import Misused
from rootstock.adapters.client.upload import read_source
from rootstock.adapters.foundation.architecture import describe
from rootstock.adapters.foundation.families import ARCHITECTURES, DECODERS
from rootstock.adapters.foundation.location import FoundationError, FoundationFiles, locate
from rootstock.adapters.spec import MAX_PREFIX_CHARACTERS, EmbeddingSpec, FoundationSpec, Rejected
from tests.attacks.forge import (
    LABELS,
    LIMITS,
    QUERY,
    good_config,
    good_files,
    good_tensors,
    plain_files,
    refused,
    tiny_bert,
)
from tests.parity.matrix import ARCHITECTURES as TRIED
from tests.peft_adapters import zip_folder

HUB = "sentence-transformers/all-MiniLM-L6-v2"
SNAPSHOT = "hub/models--sentence-transformers--all-MiniLM-L6-v2/snapshots/" + "a" * 40
Change = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> FoundationFiles:
    return tiny_bert(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def tiny(files: FoundationFiles) -> FoundationSpec:
    return describe(files)


@pytest.mark.parametrize(
    ("named", "foundation", "same"),
    [
        (HUB, HUB, True),
        (HUB + "/", HUB, True),
        (HUB.lower(), HUB, True),
        (f"{HUB}@{'a' * 40}", HUB, True),
        ("all-MiniLM-L6-v2", HUB, True),
        ("/home/ada/models/all-MiniLM-L6-v2", HUB, True),
        ("./all-MiniLM-L6-v2/", HUB, True),
        (r"C:\models\all-MiniLM-L6-v2", HUB, True),
        (f"/root/.cache/{SNAPSHOT}", HUB, True),
        ("default", HUB, True),
        ("/opt/model", HUB, True),
        (HUB, "all-MiniLM-L6-v2", True),
        ("/home/ada/all-MiniLM-L6-v2", "all-MiniLM-L6-v2", True),
        ("bert-base-uncased", HUB, False),
        ("google-bert/bert-base-uncased", HUB, False),
        ("nreimers/MiniLM-L6-H384-uncased", HUB, False),
        ("somebody/all-MiniLM-L6-v2", HUB, False),
        ("/home/ada/model", HUB, False),
        ("/home/ada/default", HUB, False),
        ("model", HUB, False),
        ("sentence-transformers", HUB, False),
        (".", HUB, False),
        ("/", HUB, False),
    ],
)
def test_a_base_is_the_foundation_by_its_names_its_folder_or_a_copy_of_its_name(
    named: str, foundation: str, same: bool
) -> None:
    assert is_same(named, foundation, ("default", "/opt/model")) is same


def test_an_adapter_of_another_base_of_the_same_shapes_is_refused_with_both_names_and_the_remedy(
    tiny: FoundationSpec,
) -> None:
    other = plain_files(config=good_config(base_model_name_or_path="google-bert/bert-tiny"))
    said = ("'google-bert/bert-tiny'", f"{tiny.name!r}", "the form field `foundation`")
    refused(other, tiny, "foundation", "base_model_name_or_path", *said)
    refused(
        other, tiny, "foundation", "foundation", "'default'", tiny.name, plain=PlainFields(foundation="default")
    )
    for name in ("foundation", tiny.name, tiny.other_names[0]):
        bundle = open_bundle(pack(other), LIMITS, tiny, PlainFields(foundation=name))
        assert f"the form field `foundation`, {name!r}" in bundle.warnings[0]
        assert bundle.adapter(tiny, LIMITS.max_rank).labels


@pytest.mark.parametrize("kind", ["LOHA", "LORA", None])
def test_the_base_is_compared_whatever_the_kind(tiny: FoundationSpec, kind: str | None) -> None:
    config = good_config(base_model_name_or_path="other/model", peft_type=kind)
    refused(plain_files(config=config), tiny, "foundation", "base_model_name_or_path", "'other/model'")


@pytest.mark.parametrize("named", [None, ""])
def test_a_folder_that_names_no_base_is_taken_and_says_so(tiny: FoundationSpec, named: str | None) -> None:
    bundle = open_bundle(pack(plain_files(config=good_config(base_model_name_or_path=named))), LIMITS, tiny)
    assert "base_model_name_or_path has none" in bundle.warnings[0]


def test_a_bundle_without_a_fingerprint_that_names_another_foundation_is_refused_where_it_arrives(
    tiny: FoundationSpec,
) -> None:
    for name, fingerprint in (("other/model", tiny.fingerprint), (tiny.name, None), (None, None)):
        stated: dict[str, Any] = {"fingerprint": fingerprint, "name": name, "revision": None}
        open_bundle(pack(good_files(tiny, foundation=stated)), LIMITS, tiny).check_named_base(tiny)
    other = {"fingerprint": None, "name": "other/model", "revision": None}
    bundle = open_bundle(pack(good_files(tiny, foundation=other)), LIMITS, tiny)
    with pytest.raises(Rejected, match=f"made for 'other/model'.*{tiny.name}"):
        bundle.check_named_base(tiny)


@pytest.fixture(scope="module")
def trained(files: FoundationFiles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What transformers' Trainer leaves of two steps."""
    from peft import LoraConfig, get_peft_model

    folder = tmp_path_factory.mktemp("trainer") / "out"
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(files.folder / "tokenizer.json"), pad_token="[PAD]")
    model = get_peft_model(
        AutoModelForSequenceClassification.from_pretrained(files.folder, num_labels=3),
        LoraConfig(task_type="SEQ_CLS"),
    )
    rows = [{"input_ids": [2, 6, 7, 3], "attention_mask": [1] * 4, "labels": i % 3} for i in range(4)]
    arguments = TrainingArguments(
        str(folder), max_steps=2, save_steps=1, report_to=[], disable_tqdm=True, use_cpu=True
    )
    trainer = Trainer(model, arguments, train_dataset=rows, processing_class=tokenizer)
    trainer.train()
    trainer.save_model()
    trainer.save_state()
    trainer.save_metrics("train", {"loss": 1.0})
    return folder


LEFT_BY_TRAINER = {
    "all_results.json", "checkpoint-1/", "checkpoint-2/", "tokenizer.json", "tokenizer_config.json",
    "train_results.json", "trainer_state.json", "training_args.bin",
}  # fmt: skip
SYSTEM_S = {
    "__MACOSX/out/._adapter_config.json": "x", "out/.DS_Store": "x", "out/checkpoint-1/.DS_Store": "x",
    "out/.ipynb_checkpoints/README.md": "x", "out/Thumbs.db": "x",
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_a_trainer_s_folder_is_taken_zipped_or_not_and_what_is_left_out_is_listed(
    tiny: FoundationSpec, trained: Path
) -> None:
    data, ignored = read_source(trained)
    assert {*ignored, *open_bundle(data, LIMITS, tiny).ignored} == LEFT_BY_TRAINER
    digest = open_bundle(data, LIMITS, tiny).digest
    for under, extra in (("", {}), ("out/", {}), ("out/", SYSTEM_S), ("./", {}), ("checkpoint-9/", {})):
        bundle = open_bundle(zip_folder(trained, under, **extra), LIMITS, tiny)
        assert bundle.digest == digest
        added = {"__MACOSX/", ".DS_Store", ".ipynb_checkpoints/", "Thumbs.db"} if extra else set()
        assert set(bundle.ignored) == LEFT_BY_TRAINER | added
        assert set(bundle.files) <= set(MEMBERS)
    one = open_bundle(zip_folder(trained / "checkpoint-2", "checkpoint-2/"), LIMITS, tiny)
    assert {"optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"} <= set(one.ignored)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("notes.txt", "unknown"),
        ("modeling.py", "unknown"),
        ("sub/adapter_config.json", ""),
        ("pytorch_model.bin", "pickled weights are never read"),
        ("model.safetensors", "the weights of a whole model"),
        ("model-00001-of-00002.safetensors", "the weights of a whole model"),
    ],
)
def test_an_unknown_file_beside_an_adapter_is_refused_by_name_in_a_zip_and_in_a_folder(
    tiny: FoundationSpec, tmp_path: Path, name: str, reason: str
) -> None:
    upload = {**plain_files(), name: b"x"}
    error = refused(upload, tiny, "members", "" if "/" in name else name, reason)
    assert error.where
    for path, content in upload.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(content)
    with pytest.raises(Misused, match=f"holds {name}.*{reason}"):
        read_source(tmp_path)


def test_a_whole_checkpoint_is_refused_as_one(tiny: FoundationSpec, files: FoundationFiles) -> None:
    whole = "the weights of a whole model, not of an adapter; save the PEFT model with save_pretrained"
    with pytest.raises(Rejected, match=whole):
        open_bundle(zip_folder(files.folder), LIMITS, tiny)
    with pytest.raises(Misused, match=f"no adapter_config.json and no {WEIGHTS}; model.safetensors: {whole}"):
        read_source(files.folder)


def _wider(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    def grown(size: int) -> int:
        return 48 if size == 32 else size

    return {name: np.zeros([grown(s) for s in t.shape], np.float32) for name, t in tensors.items()}


def _deeper(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    more = {
        n.replace("layer.2.", f"layer.{i}."): t for n, t in tensors.items() if "layer.2." in n for i in (3, 4)
    }
    return tensors | more


def _shallower(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {n: t for n, t in tensors.items() if "layer.2." not in n}


def _renamed(old: str, new: str) -> Change:
    return lambda tensors: {n.replace(old, new): t for n, t in tensors.items()}


def _without_head(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {n: t for n, t in tensors.items() if "classifier" not in n}


def _whole(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    head = {n: t for n, t in tensors.items() if "classifier" in n}
    return head | {"bert.encoder.layer.0.attention.self.query.weight": np.zeros((32, 32), np.float32)}


def _with(name: str, *shape: int) -> Change:
    return lambda tensors: tensors | {f"base_model.model.bert.{name}": np.zeros(shape, np.float32)}


CAUSES: dict[str, tuple[Change, str, str]] = {
    "wider": (_wider, "foundation", "made for width 48, 3 layers; foundation 'tiny/bert' has width 32, 3 layers"),
    "deeper": (_deeper, "foundation", "made for width 32, 5 layers; foundation 'tiny/bert' has width 32, 3"),
    "shallower": (_shallower, "foundation", "made for width 32, 2 layers; foundation 'tiny/bert'"),
    "both": (lambda t: _deeper(_wider(t)), "foundation", "made for width 48, 5 layers"),
    "other architecture": (
        _renamed("bert.encoder.layer", "distilbert.transformer.layer"), "sites",
        "BertForSequenceClassification has no such module: the adapter was made on another architecture",
    ),
    "no head": (_without_head, "sites", "train with modules_to_save=['classifier']"),
    "whole model": (_whole, "sites", "holds weights of a whole model, such as bert.encoder.layer.0"),
    "resized": (_with("embeddings.word_embeddings.weight", 70, 32), "schema", "needs the foundation's weights"),
    "embedding": (_with("embeddings.word_embeddings.lora_embedding_A", 4, 70), "sites", "a LoRA of an embedding"),
    "trunk": (_with("encoder.layer.0.output.dense.weight", 32, 48), "sites", "a weight of the foundation itself"),
}  # fmt: skip


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize("labels", [None, LABELS])
def test_a_folder_that_does_not_fit_is_refused_by_the_cause(
    tiny: FoundationSpec, cause: str, labels: tuple[str, ...] | None
) -> None:
    change, check, said = CAUSES[cause]
    upload = plain_files(change(good_tensors()))
    refused(upload, tiny, check, "", said, plain=PlainFields(labels=labels))


@pytest.mark.parametrize("part", ["--", "models--", "a/", "/snapshots/", "@" + "a" * 40])
def test_a_base_of_millions_of_characters_is_refused_at_once(tiny: FoundationSpec, part: str) -> None:
    named = "models--" + part * (2**17 // len(part))
    refused(plain_files(config=good_config(base_model_name_or_path=named)), tiny, "foundation", "base_model")


@pytest.mark.parametrize("part", ["embed", "embed.", ".lora_A", ".default", "layer.9.", "a."])
def test_a_tensor_s_name_of_a_mebibyte_is_refused_at_once(tiny: FoundationSpec, part: str) -> None:
    name = part * (2**19 // len(part)) + ".original_module.x"
    refused(plain_files(good_tensors() | {name: np.zeros(1, np.float32)}), tiny, "sites", "")


def test_an_adapter_of_some_layers_by_choice_fits(tiny: FoundationSpec) -> None:
    config = good_config(layers_to_transform=[0, 1])
    bundle = open_bundle(pack(plain_files(_shallower(good_tensors()), config)), LIMITS, tiny)
    assert len(bundle.adapter(tiny, LIMITS.max_rank).weights.sites) == 4


@pytest.mark.parametrize(
    ("config", "used"),
    [
        ({"id2label": {"0": "a", "1": "b", "2": "c"}}, True),
        ({"id2label": {"0": "a", "1": "b"}}, False),
        ({"id2label": {"0": "a", "1": "b", "3": "c"}}, False),
        ({"id2label": {"0": "a", "1": "a", "2": "a"}}, False),
        ({"id2label": ["a", "b", 3]}, False),
        ({"id2label": None}, False),
        ({}, False),
        ([], False),
    ],
)
def test_the_labels_of_a_config_are_taken_where_they_fit_the_head(
    tiny: FoundationSpec, config: Any, used: bool
) -> None:
    files = plain_files(good_tensors(labels=3)) | {"config.json": json.dumps(config).encode()}
    bundle = open_bundle(pack(files), LIMITS, tiny)
    assert bundle.manifest.labels == (("a", "b", "c") if used else ("LABEL_0", "LABEL_1", "LABEL_2"))
    assert ("config.json" in bundle.ignored, any("no labels" in w for w in bundle.warnings)) == (
        not used,
        not used,
    )
    given = open_bundle(pack(files), LIMITS, tiny, PlainFields(labels=("x", "y", "z")))
    assert (given.manifest.labels, given.ignored) == (("x", "y", "z"), ("config.json",))


@pytest.mark.parametrize(("labels", "given", "warned"), [(3, None, True), (1, None, False), (3, LABELS, False)])
def test_labels_that_were_not_given_are_warned_of_where_there_are_several(
    tiny: FoundationSpec, labels: int, given: tuple[str, ...] | None, warned: bool
) -> None:
    data = pack(plain_files(good_tensors(labels=labels)))
    warnings = open_bundle(data, LIMITS, tiny, PlainFields(labels=given)).warnings
    told = [w for w in warnings if "answers say LABEL_0 to LABEL_2" in w and "form field `labels`" in w]
    assert bool(told) is warned


@pytest.mark.parametrize("version", [None, "0.9.0", "0.21.2", "0.21.3.dev0"])
def test_keys_that_are_no_options_of_peft_are_ignored_and_told(tiny: FoundationSpec, version: str | None) -> None:
    config = good_config(_comment="ours", trained_by="Ada", peft_version=version)
    warnings = open_bundle(pack(plain_files(config=config)), LIMITS, tiny).warnings
    assert warnings[-1].endswith("PEFT has no such options: _comment, trained_by")


def test_an_option_of_a_newer_peft_is_refused_by_name(tiny: FoundationSpec) -> None:
    for version in ("0.22.0", "0.99.1", "1.0", "0.22.0.dev0@abc"):
        config = good_config(an_option_of_tomorrow=1, peft_version=version)
        refused(
            plain_files(config=config), tiny, "schema", "an_option_of_tomorrow", "may change the outputs", version
        )
    unset: Mapping[str, Any] = good_config(an_option_of_tomorrow=None, peft_version="0.99")
    assert open_bundle(pack(plain_files(config=unset)), LIMITS, tiny).files


def test_a_tensor_under_two_names_is_refused(tiny: FoundationSpec) -> None:
    tensors = good_tensors()
    tensors[f"{QUERY}.lora_A.default.weight"] = tensors[f"{QUERY}.lora_A.weight"]
    refused(plain_files(tensors), tiny, "sites", WEIGHTS, "two tensors have the same name")


def test_a_folder_without_a_task_names_the_field_that_gives_it(tiny: FoundationSpec) -> None:
    refused(plain_files(config=good_config(task_type=None)), tiny, "schema", "task_type", "the form field `task`")
    other = {CONFIG: json.dumps(good_config(task_type="IMAGE_CLASSIFICATION")).encode()}
    refused(
        sentence_files() | other,
        tiny,
        "schema",
        "task_type",
        "'IMAGE_CLASSIFICATION' names no task; give the form field",
    )


FOREIGN: dict[str, dict[str, Any]] = {
    "longt5": {"d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 2, "num_heads": 2},
    "olmo": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48},
    "qwen3_moe": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "intermediate_size": 48,
        "moe_intermediate_size": 16,
        "num_experts": 4,
    },
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    "swinv2": {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4, "image_size": 32},
    "convbert": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48},
}


@pytest.mark.parametrize("model_type", FOREIGN)
def test_a_foundation_of_an_architecture_that_is_not_served_is_refused_by_its_name(
    model_type: str, tmp_path: Path
) -> None:
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.for_model(model_type, **FOREIGN[model_type])).save_pretrained(tmp_path)
    with pytest.raises(FoundationError, match=f"the architecture '{model_type}', which is not served.*bert, "):
        locate(str(tmp_path))


def test_the_architectures_that_are_served_are_those_that_the_parity_tests_try() -> None:
    # A decoder is tried as an encoder, too, under a config in which each token sees all others.
    assert set(ARCHITECTURES) == {name for name, one in TRIED.items() if one.type == name}
    assert {one.type for name, one in TRIED.items() if one.type != name} <= set(DECODERS)


@pytest.mark.parametrize(
    ("changed", "where", "said"),
    [
        ({"modules.json": [("Transformer", ""), ("Pooling", "1_Pooling"), ("Dense", "2_Dense")]}, "modules.json",
         "'sentence_transformers.models.Dense' (folder '2_Dense') is not served"),
        ({"modules.json": {"a": 1}}, "modules.json", "not a list of modules"),
        ({"1_Pooling/config.json": {"pooling_mode": "max"}}, "1_Pooling/config.json", "max is not served"),
        ({"1_Pooling/config.json": {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}},
         "1_Pooling/config.json", "the pooling max and mean is not served; served: mean, cls or lasttoken"),
        ({"1_Pooling/config.json": {}}, "1_Pooling/config.json", "a Pooling without settings is not served"),
        ({"1_Pooling/config.json": [1]}, "1_Pooling/config.json", "holds list, not an object"),
        ({"config_sentence_transformers.json": {"default_prompt_name": {}}}, "config_sentence", "is {}, and"),
        ({"sentence_bert_config.json": {"do_lower_case": True}}, "sentence_bert_config.json", "do_lower_case"),
    ],
)  # fmt: skip
def test_what_sentence_transformers_does_and_is_not_served_is_refused_by_name(
    tiny: FoundationSpec, changed: dict[str, Any], where: str, said: str
) -> None:
    refused(sentence_files(**changed), tiny, "schema", where, said)


def test_an_embedding_without_a_pooling_is_refused_and_a_folder_without_one_names_no_task(
    tiny: FoundationSpec,
) -> None:
    """A CrossEncoder has modules too, and none of them is a Pooling."""
    upload = sentence_files(**{"modules.json": [("Transformer", "")]})
    refused(
        upload, tiny, "schema", "task_type", "no modules.json with a Pooling of sentence-transformers; give the"
    )
    embeds = PlainFields(task="feature-extraction")
    refused(upload, tiny, "schema", "modules.json", "the modules are Transformer; served", plain=embeds)


def test_the_folder_states_its_own_prompt_which_may_be_none(tiny: FoundationSpec) -> None:
    prompted = replace(tiny, embedding=EmbeddingSpec("mean", False, 64, "query: "))
    assert open_bundle(pack(sentence_files()), LIMITS, prompted).manifest.preprocessing.prefix == ""


def test_a_prompt_of_any_accepted_length_can_be_opened_again_from_the_store(tiny: FoundationSpec) -> None:
    def upload(length: int) -> dict[str, bytes]:
        prompts = {"default_prompt_name": "query", "prompts": {"query": "x" * length}}
        return sentence_files(**{"config_sentence_transformers.json": prompts})

    stored = open_bundle(pack(upload(MAX_PREFIX_CHARACTERS)), LIMITS, tiny).to_zip()
    assert len(open_bundle(stored, LIMITS, tiny).manifest.preprocessing.prefix) == MAX_PREFIX_CHARACTERS
    longer, said = upload(MAX_PREFIX_CHARACTERS + 1), "has 4097 characters and the limit is 4096; shorten it"
    refused(longer, tiny, "schema", "config_sentence_transformers.json", said)


def sentence_files(**changes: Any) -> dict[str, bytes]:
    """An adapter that sentence-transformers saved, by hand; modules as (class, folder)."""
    tensors = {n.replace("model.bert.", "model."): t for n, t in good_tensors().items() if "classifier" not in n}
    modules: Any = [("Transformer", ""), ("Pooling", "1_Pooling")]
    described = {"modules.json": modules, "1_Pooling/config.json": {"pooling_mode": "cls"}, **changes}
    if isinstance(listed := described["modules.json"], list):
        described["modules.json"] = [{"type": f"sentence_transformers.models.{k}", "path": p} for k, p in listed]
    config = good_config(task_type=None, modules_to_save=None)
    return plain_files(tensors, config) | {n: json.dumps(v).encode() for n, v in described.items()}


def test_a_sentence_transformers_folder_says_the_task_the_pooling_the_length_and_the_prompt(
    tiny: FoundationSpec,
) -> None:
    prompts = {"default_prompt_name": "query", "prompts": {"query": "query: "}}
    upload = sentence_files(
        **{"sentence_bert_config.json": {"max_seq_length": 17}, "config_sentence_transformers.json": prompts}
    )
    bundle = open_bundle(pack(upload), LIMITS, tiny)
    manifest = bundle.manifest
    assert (manifest.task, manifest.head.pooling, manifest.head.normalize) == ("feature-extraction", "cls", False)
    assert (manifest.preprocessing.max_length, manifest.preprocessing.prefix) == (17, "query: ")
    assert bundle.ignored == ()
    assert MANIFEST not in bundle.files
    assert set(bundle.files) == {CONFIG, WEIGHTS}
    given = open_bundle(pack(upload), LIMITS, tiny, PlainFields(max_length=9)).manifest
    assert given.preprocessing.max_length == 9
