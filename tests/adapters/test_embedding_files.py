"""A model embeds as sentence-transformers does with the same files, or a setting is refused by its name.

Each setting goes both ways: in the files beside a foundation, and in those of an adapter that the library saved.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import (
    Dense,
    LayerNorm,
    Normalize,
    Pooling,
    Transformer,
    WeightedLayerPooling,
)

from rootstock.adapters.bundle import Limits, PlainFields, open_bundle, pack
from rootstock.adapters.foundation.architecture import describe
from rootstock.adapters.foundation.location import (
    FoundationError,
    embedding_spec,
    locate,
    lowercases_text,
    max_tokens,
    with_files,
)
from rootstock.adapters.spec import EmbeddingSpec, FoundationSpec, Preprocessing, Rejected
from rootstock.service.composition.runner_parts import open_runner
from rootstock.service.engine.core.catalog import foundation_adapter
from rootstock.service.engine.encode.modalities.text import Tokenizer, pad
from rootstock.service.engine.runners.torch.runner import TorchRunner
from rootstock.service.settings import Settings
from tests.attacks.forge import LIMITS, good_config, plain_files, tiny_bert
from tests.parity.foundations import make_tiny
from tests.parity.matrix import ARCHITECTURES
from tests.peft_adapters import close, zip_folder

WIDTH = 32
TEXTS = ["ok", "Where is my PARCEL? It was due on Monday.", "Ada Lovelace met Charles Babbage in London."]
Change = Callable[[Path], object]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def trunk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(ARCHITECTURES["bert"], tmp_path_factory.mktemp("trunk") / "model").folder


@pytest.fixture(scope="module")
def bare(trunk: Path) -> FoundationSpec:
    """The foundation that the adapters are trained on."""
    return describe(locate(str(trunk)))


def saved(trunk: Path, folder: Path, *modules: Any, **options: Any) -> Path:
    """A folder as sentence-transformers saves it: the transformer, then these modules."""
    SentenceTransformer(modules=[Transformer(str(trunk)), *modules], device="cpu", **options).save(str(folder))
    return folder


def saved_adapter(trunk: Path, folder: Path, *modules: Any, **options: Any) -> Path:
    """A folder as sentence-transformers saves it when the transformer has an adapter."""
    model = SentenceTransformer(modules=[Transformer(str(trunk)), *modules], device="cpu", **options)
    model.add_adapter(LoraConfig(r=2, target_modules=["query", "value"]))
    model.save(str(folder))
    return folder


def edited(path: str, **values: Any) -> Change:
    """Sets keys of a JSON file in a folder."""

    def change(folder: Path) -> None:
        file = folder / path
        held = json.loads(file.read_text()) if file.is_file() else {}
        file.write_text(json.dumps(held | values))

    return change


def replaced(path: str, value: Any) -> Change:
    return lambda folder: (folder / path).write_text(json.dumps(value))


def all_of(*changes: Change) -> Change:
    return lambda folder: [change(folder) for change in changes]


def embedded(folder: Path) -> np.ndarray:
    """What the foundation alone answers to each of TEXTS."""
    spec = describe(locate(str(folder)))
    runner = TorchRunner(folder, spec, slots=2, device="cpu")
    adapter, tokenizer = foundation_adapter(spec), Tokenizer(folder / "tokenizer.json")
    runner.place(0, runner.stage(adapter))
    rows = [tokenizer.encode(text, adapter.preprocessing, truncate=True) for text in TEXTS]
    return np.stack(list(runner.run(pad(rows, [0] * len(rows), tokenizer.pad_id))))


def theirs(folder: Path) -> np.ndarray:
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    vectors: np.ndarray = model.encode(TEXTS, show_progress_bar=False)
    return vectors


OLD_POOLING = {
    "word_embedding_dimension": WIDTH,
    "pooling_mode_mean_tokens": False,
    "pooling_mode_cls_token": True,
}
MEAN = EmbeddingSpec("mean", False, 64)
PROMPTS = {"prompts": {"query": "query: ", "document": ""}, "default_prompt_name": "query"}
HONOURED: dict[str, tuple[Sequence[Any], dict[str, Any], Change | None]] = {
    "mean": ([Pooling(WIDTH, "mean")], {}, None),
    "cls": ([Pooling(WIDTH, "cls")], {}, None),
    "lasttoken": ([Pooling(WIDTH, "lasttoken"), Normalize()], {}, None),
    "Normalize": ([Pooling(WIDTH, "mean"), Normalize()], {}, None),
    "default prompt": ([Pooling(WIDTH, "cls")], PROMPTS, None),
    "prompts, none the default": ([Pooling(WIDTH)], {"prompts": PROMPTS["prompts"]}, None),
    "model_max_length": ([Pooling(WIDTH)], {}, edited("tokenizer_config.json", model_max_length=7)),
    "max_seq_length": ([Pooling(WIDTH)], {}, edited("sentence_bert_config.json", max_seq_length=7)),
    "an older name": (
        [Pooling(WIDTH)],
        {},
        all_of(
            lambda folder: (folder / "sentence_bert_config.json").unlink(),
            edited("sentence_roberta_config.json", max_seq_length=7, do_lower_case=False),
        ),
    ),
    "an older pooling": ([Pooling(WIDTH)], {}, replaced("1_Pooling/config.json", OLD_POOLING)),
    "no pooling that is on": (
        [Pooling(WIDTH)],
        {},
        replaced("1_Pooling/config.json", OLD_POOLING | {"pooling_mode_cls_token": False}),
    ),
    "do_lower_case": ([Pooling(WIDTH)], {}, edited("sentence_bert_config.json", do_lower_case=True)),
    "include_prompt without a prompt": ([Pooling(WIDTH, include_prompt=False)], {}, None),
}


@pytest.mark.parametrize("name", HONOURED)
def test_a_served_setting_gives_sentence_transformers_own_vectors(name: str, trunk: Path, tmp_path: Path) -> None:
    modules, options, change = HONOURED[name]
    folder = saved(trunk, tmp_path / "model", *modules, **options)
    if change is not None:
        change(folder)
    for mine, wanted in zip(embedded(folder), theirs(folder), strict=True):
        assert close(mine, wanted)


@pytest.mark.parametrize("name", HONOURED)
def test_an_adapter_s_folder_is_read_as_a_foundation_s(
    name: str, trunk: Path, bare: FoundationSpec, tmp_path: Path
) -> None:
    """The vectors of the foundation are compared above."""
    modules, options, change = HONOURED[name]
    folders = saved(trunk, tmp_path / "model", *modules, **options), tmp_path / "adapter"
    saved_adapter(trunk, folders[1], *modules, **options)
    if change is not None:
        for folder in folders:
            change(folder)
    own = describe(locate(str(folders[0]))).embedding
    manifest = open_bundle(zip_folder(folders[1]), Limits(), bare).manifest
    assert manifest.task == "feature-extraction"
    assert (manifest.head.pooling, manifest.head.normalize) == (own.pooling, own.normalize)
    assert manifest.preprocessing == Preprocessing(own.max_tokens, prefix=own.prefix)


WITHOUT_LOWER_CASE: Change = all_of(
    lambda folder: edited(
        "tokenizer.json",
        normalizer=json.loads((folder / "tokenizer.json").read_text())["normalizer"] | {"lowercase": False},
    )(folder),
    edited("tokenizer_config.json", do_lower_case=False, strip_accents=False),
    edited("sentence_bert_config.json", do_lower_case=True),
)
# What is saved, what is changed in the files, and the words of the refusal.
REFUSED: dict[str, tuple[Sequence[Any], dict[str, Any], Change | None, str]] = {
    "Dense": ([Pooling(WIDTH), Dense(WIDTH, 8)], {}, None, r"Dense' \(folder '2_Dense'\) is not served"),
    "LayerNorm": ([Pooling(WIDTH), LayerNorm(WIDTH)], {}, None, "LayerNorm"),
    "WeightedLayerPooling": ([WeightedLayerPooling(WIDTH, 3), Pooling(WIDTH)], {}, None, "WeightedLayerPool"),
    **{
        mode: ([Pooling(WIDTH, mode)], {}, None, f"the pooling {mode} is not served; served: mean, cls or last")
        for mode in ("max", "mean_sqrt_len_tokens", "weightedmean")
    },
    "two poolings": ([Pooling(WIDTH, ("cls", "mean"))], {}, None, "the pooling cls and mean is not served"),
    "two older poolings": (
        [Pooling(WIDTH)],
        {},
        replaced("1_Pooling/config.json", OLD_POOLING | {"pooling_mode_mean_tokens": True}),
        "the pooling cls and mean is not served",
    ),
    "normalised tokens": (
        [Pooling(WIDTH), Normalize("token_embeddings", "sentence_embedding")], {}, None, "module_input_name",
    ),
    "Normalize first": ([Normalize(), Pooling(WIDTH)], {}, None, "the modules are Transformer, Normalize, Pool"),
    "no Pooling": ([], {}, None, "the modules are Transformer; served"),
    "include_prompt": ([Pooling(WIDTH, include_prompt=False)], PROMPTS, None, "include_prompt is false"),
    "truncate_dim": ([Pooling(WIDTH)], {"truncate_dim": 8}, None, "truncate_dim is 8, which is not served"),
    "do_lower_case": ([Pooling(WIDTH)], {}, WITHOUT_LOWER_CASE, "do_lower_case is true, and tokenizer.json"),
    "an unknown option": (
        [Pooling(WIDTH)], {}, edited("sentence_bert_config.json", query_expansion=4), "query_expansion is 4",
    ),
    "remote code": (
        [Pooling(WIDTH)],
        {},
        replaced("modules.json", [{"type": "custom_st.Transformer", "path": ""}]),
        "custom_st.Transformer' is not served",
    ),
    "no settings of a Pooling": (
        [Pooling(WIDTH)], {}, replaced("1_Pooling/config.json", {}), "a Pooling without settings is not served",
    ),
    "an unknown option of a Pooling": (
        [Pooling(WIDTH)], {}, edited("1_Pooling/config.json", temperature=2), "temperature is 2, which is not",
    ),
    "settings in no object": (
        [Pooling(WIDTH)], {}, replaced("sentence_bert_config.json", [1]), "holds list, not an object",
    ),
    "an older name": (
        [Pooling(WIDTH)],
        {},
        all_of(
            lambda folder: (folder / "sentence_bert_config.json").unlink(),
            edited("sentence_xlnet_config.json", query_expansion=4),
        ),
        "sentence_xlnet_config.json: query_expansion is 4",
    ),
    "a long prompt": (
        [Pooling(WIDTH)],
        {"prompts": {"query": "x" * 4097}, "default_prompt_name": "query"},
        None,
        "the prompt 'query' has 4097 characters and the limit is 4096; shorten it",
    ),
    "a prompt's name that is no text": (
        [Pooling(WIDTH)],
        {},
        edited("config_sentence_transformers.json", default_prompt_name={"a": 1}),
        "`prompts` has no such prompt",
    ),
    "modules in no list": ([Pooling(WIDTH)], {}, replaced("modules.json", {"a": 1}), "is not a list of modules"),
    "a model in a folder": (
        [Pooling(WIDTH)],
        {},
        lambda folder: (folder / "modules.json").write_text(
            (folder / "modules.json").read_text().replace('"path": ""', '"path": "0_Transformer"')
        ),
        "the model lies in the folder '0_Transformer'",
    ),
    "no such prompt": (
        [Pooling(WIDTH)],
        {},
        edited("config_sentence_transformers.json", default_prompt_name="passage"),
        "default_prompt_name is 'passage', and `prompts` has no such prompt",
    ),
    **{
        f"max_seq_length {value!r}": (
            [Pooling(WIDTH)], {}, edited("sentence_bert_config.json", max_seq_length=value), "max_seq_length is",
        )
        for value in (0, True, "64", 2.5)
    },
    **{
        f"model_max_length {value!r}": (
            [Pooling(WIDTH)], {}, edited("tokenizer_config.json", model_max_length=value), "model_max_length is",
        )
        for value in (0, True, "64", 64.5)
    },
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_setting_that_is_not_served_is_refused_by_its_name_both_ways_in_the_same_words(
    name: str, trunk: Path, bare: FoundationSpec, tmp_path: Path
) -> None:
    modules, options, change, words = REFUSED[name]
    folders = saved(trunk, tmp_path / "model", *modules, **options), tmp_path / "adapter"
    saved_adapter(trunk, folders[1], *modules, **options)
    if change is not None:
        for folder in folders:
            change(folder)
    lowers = lowercases_text(folders[0])
    with pytest.raises(FoundationError, match=words) as of_foundation:
        embedding_spec(folders[0], 64, lowers)
    spec = replace(bare, lowercases=lowers)
    with pytest.raises(Rejected) as of_adapter:
        open_bundle(zip_folder(folders[1]), Limits(), spec, PlainFields(task="feature-extraction"))
    assert of_adapter.value.check == "schema"
    cause = f"{of_adapter.value.where}: {of_adapter.value.message.partition('; ')[0]}"
    assert str(of_foundation.value).startswith(f"{folders[0]}: {cause}; ")


def test_whether_the_foundation_s_tokenizer_makes_text_lower_case_is_read_from_its_files(
    trunk: Path, bare: FoundationSpec, tmp_path: Path
) -> None:
    assert bare.lowercases
    folder = saved(trunk, tmp_path / "model", Pooling(WIDTH))
    WITHOUT_LOWER_CASE(folder)
    edited("sentence_bert_config.json", do_lower_case=False)(folder)
    cased = describe(locate(str(folder)))
    assert not cased.lowercases
    cached = FoundationSpec.from_json(bare.to_json())
    assert with_files(cached, locate(str(trunk))).lowercases
    assert not with_files(cached, locate(str(folder))).lowercases


def test_a_plain_adapter_for_embeddings_embeds_as_the_foundation_does(tmp_path: Path) -> None:
    own = EmbeddingSpec("cls", True, 32, "query: ")
    spec = replace(describe(tiny_bert(tmp_path / "tiny")), embedding=own)
    config = good_config(task_type="FEATURE_EXTRACTION", modules_to_save=None)
    manifest = open_bundle(pack(plain_files(config=config)), LIMITS, spec).manifest
    assert (manifest.head.pooling, manifest.head.normalize) == ("cls", True)
    assert manifest.preprocessing == Preprocessing(32, prefix="query: ")
    classifier = open_bundle(pack(plain_files()), LIMITS, spec).manifest
    assert classifier.preprocessing == Preprocessing(64)


@pytest.mark.parametrize("value", [0, True, "512", [64]])
def test_a_token_limit_that_is_no_number_is_refused(value: Any, tmp_path: Path) -> None:
    folder = tiny_bert(tmp_path / "tiny").folder
    edited("tokenizer_config.json", model_max_length=value)(folder)
    with pytest.raises(FoundationError, match="model_max_length is"):
        max_tokens(folder, "bert", 64, 0)
    edited("tokenizer_config.json", model_max_length=1e30)(folder)
    assert max_tokens(folder, "bert", 64, 0) == 64


def test_what_an_export_does_not_hold_is_read_from_the_folder_at_every_start(
    new_home: Callable[[], Path], tmp_path: Path
) -> None:
    """An export is kept by the fingerprint, which none of these files changes."""
    default = locate("default")
    folder = tmp_path / "other"
    folder.mkdir()
    for path in default.folder.iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "1_Pooling").unlink()
    (folder / "1_Pooling").mkdir()
    for name in ("config_sentence_transformers.json", "tokenizer_config.json"):
        content = (folder / name).read_bytes()
        (folder / name).unlink()
        (folder / name).write_bytes(content)
    replaced("1_Pooling/config.json", OLD_POOLING)(folder)
    edited("config_sentence_transformers.json", **PROMPTS)(folder)
    edited("tokenizer_config.json", model_max_length=100)(folder)
    settings = Settings(home=new_home(), foundation=str(folder))
    runner = open_runner(str(folder), locate(str(folder)), settings).encoder
    assert (runner.spec.name, runner.spec.max_tokens) == ("other", 100)
    assert runner.spec.embedding == EmbeddingSpec("cls", True, 100, "query: ")
    assert with_files(runner.spec, default).embedding == EmbeddingSpec("mean", True, 256)
    edited("config_sentence_transformers.json", truncate_dim=8)(folder)
    with pytest.raises(FoundationError, match="truncate_dim"):
        open_runner(str(folder), locate(str(folder)), settings)
