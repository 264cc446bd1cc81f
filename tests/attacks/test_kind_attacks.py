"""Uploads that attack through the kinds beside LoRA: each is refused by its check, naming what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from peft import PeftType

from rootstock.adapters.bundle import open_bundle, pack
from rootstock.adapters.bundle.kinds.methods import CONVERTED, NATIVE, REFUSED, Unconverted
from rootstock.adapters.bundle.peft_config import read_config
from rootstock.adapters.foundation.weights import FoundationWeights
from rootstock.adapters.spec import FoundationSpec, Rejected
from tests.attacks.forge import (
    LIMITS,
    QUERY,
    TRUNK,
    good_config,
    good_files,
    good_tensors,
    plain_files,
    refused,
)

Tensors = dict[str, np.ndarray]
SITES = [f"{TRUNK}.{i}.attention.self.{kind}" for i in range(3) for kind in ("query", "value")]
HEAD = {n: t for n, t in good_tensors().items() if "classifier" in n}
FOLDER = "base_model.model.bert"
NORM = f"{FOLDER}.embeddings.LayerNorm.bias"


def dora() -> tuple[Tensors, dict[str, Any]]:
    magnitudes = {f"{site}.lora_magnitude_vector": np.ones(32, np.float32) for site in SITES}
    return good_tensors() | magnitudes, good_config(use_dora=True)


def ia3() -> tuple[Tensors, dict[str, Any]]:
    tensors = {f"{site}.ia3_l": np.ones((32, 1), np.float32) for site in SITES if "query" in site}
    tensors |= {f"{site}.ia3_l": np.ones((1, 32), np.float32) for site in SITES if "value" in site}
    config = {"peft_type": "IA3", "task_type": "SEQ_CLS", "target_modules": ["query", "value"]}
    return tensors | HEAD, {**config, "feedforward_modules": ["value"], "modules_to_save": ["classifier"]}


def adalora() -> tuple[Tensors, dict[str, Any]]:
    shapes = {"lora_A": (4, 32), "lora_E": (4, 1), "lora_B": (32, 4)}
    tensors = {f"{site}.{n}": np.ones(shape, np.float32) for site in SITES for n, shape in shapes.items()}
    return tensors | HEAD, good_config(peft_type="ADALORA", init_r=4, rank_pattern=None)


def biased() -> tuple[Tensors, dict[str, Any]]:
    linears = ["attention.self.key", "attention.output.dense", "output.dense"]
    names = [f"{TRUNK}.{i}.{n}.bias" for i in range(3) for n in linears]
    names += [f"{TRUNK}.{i}.{n}.LayerNorm.bias" for i in range(3) for n in ("attention.output", "output")]
    names += [f"{site}.base_layer.bias" for site in SITES] + [f"{FOLDER}.pooler.dense.bias", NORM]
    tensors = {name: np.ones(32, np.float32) for name in names}
    tensors |= {f"{TRUNK}.{i}.intermediate.dense.bias": np.ones(48, np.float32) for i in range(3)}
    return good_tensors() | tensors, good_config(bias="all")


def pooled() -> tuple[Tensors, dict[str, Any]]:
    tensors = {f"{FOLDER}.pooler.dense.weight": np.ones((32, 32), np.float32)}
    tensors |= {f"{FOLDER}.pooler.dense.bias": np.ones(32, np.float32)}
    return good_tensors() | tensors, good_config(modules_to_save=["classifier", "pooler"])


Made = Callable[[], tuple[Tensors, dict[str, Any]]]
ALL: list[Made] = [dora, ia3, adalora, biased, pooled]


@pytest.mark.parametrize("make", ALL)
def test_the_examples_themselves_are_read(tiny: FoundationSpec, base: FoundationWeights, make: Made) -> None:
    adapter = open_bundle(pack(plain_files(*make())), LIMITS, tiny).adapter(tiny, LIMITS.max_rank, base)
    assert len(adapter.weights.sites) >= 6


NEW_TENSORS = [
    (dora, f"{QUERY}.lora_magnitude_vector"),
    (ia3, f"{QUERY}.ia3_l"), (ia3, f"{TRUNK}.0.attention.self.value.ia3_l"),
    (adalora, f"{QUERY}.lora_A"), (adalora, f"{QUERY}.lora_E"), (adalora, f"{QUERY}.lora_B"),
    (biased, f"{QUERY}.base_layer.bias"), (biased, NORM), (biased, f"{TRUNK}.1.intermediate.dense.bias"),
    (pooled, f"{FOLDER}.pooler.dense.weight"), (pooled, f"{FOLDER}.pooler.dense.bias"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "name"), NEW_TENSORS)
def test_a_missing_tensor_of_another_kind_is_refused_by_name(
    tiny: FoundationSpec, base: FoundationWeights, make: Made, name: str
) -> None:
    tensors, config = make()
    del tensors[name]
    where = name.removeprefix("base_model.model.")
    # The pooler's bias without its weight is one tensor too many.
    wanted = where.replace(".weight", ".bias") if make is pooled else where
    refused(plain_files(tensors, config), tiny, "sites", wanted, base=base)


@pytest.mark.parametrize(("make", "name"), NEW_TENSORS)
@pytest.mark.parametrize("shape", [(), (32, 1, 1), (3, 7), (0,), (1, 33)])
def test_a_misshapen_tensor_of_another_kind_is_refused_with_both_shapes(
    tiny: FoundationSpec, base: FoundationWeights, make: Made, name: str, shape: tuple[int, ...]
) -> None:
    tensors, config = make()
    wanted = list(tensors[name].shape)
    tensors[name] = np.zeros(shape, np.float32)
    where = name.removeprefix("base_model.model.")
    refused(plain_files(tensors, config), tiny, "sites", where, list(shape), f"expected {wanted}", base=base)


@pytest.mark.parametrize(("make", "name"), NEW_TENSORS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_in_another_kind_are_refused_by_tensor(
    tiny: FoundationSpec, base: FoundationWeights, make: Made, name: str, bad: float
) -> None:
    tensors, config = make()
    tensors[name].flat[-1] = bad
    refused(plain_files(tensors, config), tiny, "finite", name, bad, base=base)


@pytest.mark.parametrize("make", [dora, biased, pooled])
def test_what_needs_the_foundation_s_weights_is_refused_without_them(tiny: FoundationSpec, make: Made) -> None:
    option = {dora: "use_dora", biased: "bias", pooled: "modules_to_save"}[make]
    refused(plain_files(*make()), tiny, "schema", option, "needs the foundation's weights")


def test_a_row_that_dora_brings_to_nothing_is_refused_by_site(
    tiny: FoundationSpec, base: FoundationWeights
) -> None:
    """Its direction is undefined: PEFT computes NaN."""
    tensors, config = dora()
    tensors[f"{QUERY}.lora_A.weight"] = -base.weight("encoder.layer.0.attention.self.query")[:4].copy()
    tensors[f"{QUERY}.lora_B.weight"] = np.eye(32, 4, dtype=np.float32)
    config["lora_alpha"] = 4
    site = "encoder.layer.0.attention.self.query"
    refused(plain_files(tensors, config), tiny, "finite", site, "norm of the updated weight", base=base)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (ia3, f"{QUERY}.lora_A.weight"),
        (ia3, f"{TRUNK}.0.attention.self.key.ia3_l"),
        (adalora, f"{QUERY}.lora_A.weight"),
        (adalora, f"{QUERY}.ranknum"),
        (dora, f"{TRUNK}.0.attention.self.key.lora_magnitude_vector"),
        (good_tensors, f"{FOLDER}.embeddings.word_embeddings.lora_embedding_A"),
        (good_tensors, f"{FOLDER}.pooler.dense.weight"),
        (good_tensors, f"{QUERY}.base_layer.bias"),
        (good_tensors, f"{QUERY}.original_module.bias"),
    ],
)
def test_a_tensor_of_another_kind_or_module_is_left_over(
    tiny: FoundationSpec, base: FoundationWeights, make: Any, name: str
) -> None:
    tensors, config = (make(), good_config()) if make is good_tensors else make()
    tensors[name] = np.zeros((4, 32), np.float32)
    refused(plain_files(tensors, config), tiny, "sites", name.removeprefix("base_model.model."), base=base)


@pytest.mark.parametrize(
    ("saved", "name"),
    [
        (["dense"], f"{TRUNK}.0.output.dense.weight"),
        (["position_embeddings"], f"{FOLDER}.embeddings.position_embeddings.weight"),
        (["encoder.layer.0"], f"{TRUNK}.0.intermediate.dense.weight"),
    ],
)
def test_a_module_of_the_trunk_saved_whole_is_refused_by_name(
    tiny: FoundationSpec, base: FoundationWeights, saved: list[str], name: str
) -> None:
    left = {n: t for n, t in good_tensors().items() if f"{saved[0]}." not in n}
    tensors = {**left, name: np.zeros((32, 32), np.float32)}
    config = good_config(modules_to_save=["classifier", *saved])
    where = name.removeprefix("base_model.model.")
    refused(plain_files(tensors, config), tiny, "sites", where, "modules_to_save", "only the pooler", base=base)


def test_a_trained_bias_of_a_module_that_is_no_site_is_refused_by_name(
    tiny: FoundationSpec, base: FoundationWeights
) -> None:
    tensors, config = biased()
    tensors[f"{FOLDER}.embeddings.projection.bias"] = np.ones(32, np.float32)
    refused(plain_files(tensors, config), tiny, "sites", "embeddings.projection.bias", "bias", base=base)


def test_a_norm_that_cannot_be_shifted_may_keep_its_bias_but_not_train_it(
    tiny: FoundationSpec, base: FoundationWeights
) -> None:
    tensors, config = biased()
    fewer = replace(tiny, norms={n: w for n, w in tiny.norms.items() if n != "embeddings.LayerNorm"})
    where = "embeddings.LayerNorm.bias"
    refused(plain_files(tensors, config), fewer, "sites", where, "trained bias", base=base)
    original = base.bias("embeddings.LayerNorm")
    assert original is not None
    same = plain_files({**tensors, NORM: original.copy()}, config)
    adapter = open_bundle(pack(same), LIMITS, fewer).adapter(fewer, LIMITS.max_rank, base)
    assert "embeddings.LayerNorm" not in adapter.weights.sites


@pytest.mark.parametrize("make", ALL)
def test_a_bundle_of_another_kind_names_the_targeted_modules_alone(
    tiny: FoundationSpec, base: FoundationWeights, make: Made
) -> None:
    """Shifted norms and a whole pooler are not targets."""
    files = plain_files(*make())
    good = good_files(tiny, files)
    targets = ("embeddings.LayerNorm", "encoder.layer.0.attention.self.query")
    refused(good_files(tiny, files, targets=targets), tiny, "sites", "targets", "2 and 6 modules", base=base)
    assert open_bundle(pack(good), LIMITS, tiny).adapter(tiny, LIMITS.max_rank, base).labels


OPTIONS: list[tuple[Made, str, Any]] = [
    (ia3, "feedforward_modules", None), (ia3, "feedforward_modules", ["key"]), (ia3, "feedforward_modules", 3),
    (ia3, "feedforward_modules", [3]), (ia3, "feedforward_modules", "("), (ia3, "feedforward_modules", "(a+)+$"),
    (ia3, "feedforward_modules", ["value"] * 1025), (ia3, "target_modules", None), (ia3, "use_dora", True),
    (ia3, "bias", "all"), (ia3, "r", 4), (ia3, "layers_to_transform", [1]),
    (adalora, "init_r", 0), (adalora, "init_r", "4"), (adalora, "init_r", True), (adalora, "lora_alpha", "x"),
    (adalora, "lora_alpha", float("inf")), (adalora, "use_dora", True), (adalora, "lora_bias", True),
    (adalora, "rank_pattern", [True]), (adalora, "rank_pattern", {"a.lora_E": 4}),
    (adalora, "rank_pattern", {"a.lora_E": [True] * 3}), (adalora, "rank_pattern", {"a.lora_E": [1, 0, 1, 0]}),
    (adalora, "rank_pattern", {"bert.encoder.layer.9.attention.self.query.lora_E": [True] * 4}),
    (adalora, "rank_pattern", {f"m{i}.lora_E": [True] * 4 for i in range(1025)}),
    (adalora, "init_lora_weights", "pissa"), (adalora, "bias", "some"),
    (adalora, "use_qalora", True),
    (dora, "lora_bias", True), (dora, "layer_replication", [[0, 1]]),
]  # fmt: skip


@pytest.mark.parametrize(("make", "key", "value"), OPTIONS)
def test_a_wrong_option_of_another_kind_is_refused_by_its_key(
    tiny: FoundationSpec, base: FoundationWeights, make: Made, key: str, value: Any
) -> None:
    tensors, config = make()
    if value == float("inf"):
        with pytest.raises(Rejected, match=key):
            read_config({**config, key: value})
    else:
        refused(plain_files(tensors, {**config, key: value}), tiny, "schema", key, base=base)


def test_adalora_s_tensors_must_be_as_many_as_its_pattern_keeps(
    tiny: FoundationSpec, base: FoundationWeights
) -> None:
    tensors, config = adalora()
    config["rank_pattern"] = {"bert.encoder.layer.0.attention.self.query.lora_E": [True, False, True, False]}
    refused(plain_files(tensors, config), tiny, "sites", "query.lora_A", [4, 32], [2, 32], base=base)


@pytest.mark.parametrize("kind", REFUSED)
def test_a_kind_that_cannot_be_served_is_refused_by_name_with_the_reason(tiny: FoundationSpec, kind: str) -> None:
    upload = plain_files(config={"peft_type": kind, "task_type": "SEQ_CLS"})
    refused(upload, tiny, "schema", "peft_type", kind, REFUSED[kind])


@pytest.mark.parametrize("kind", CONVERTED)
def test_a_kind_that_has_to_be_converted_says_so(tiny: FoundationSpec, kind: str) -> None:
    files = plain_files(config={"peft_type": kind, "task_type": "SEQ_CLS"})
    for upload in (files, good_files(tiny, files)):
        error = refused(upload, tiny, "schema", "peft_type", kind, "rootstock adapters convert")
        assert isinstance(error, Unconverted)
        assert error.kind == kind


def test_every_kind_of_the_installed_peft_is_served_converted_or_refused_with_a_reason() -> None:
    assert sorted([*NATIVE, *CONVERTED, *REFUSED]) == sorted(PeftType)
