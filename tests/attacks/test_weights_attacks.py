"""Uploads that attack through the tensors: each is refused by its check, naming the tensor and both values."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from rootstock.adapters.bundle import PlainFields, open_bundle, pack
from rootstock.adapters.bundle.archive import WEIGHTS
from rootstock.adapters.spec import FoundationSpec, HeadSpec, Rejected
from tests.attacks.forge import (
    LIMITS,
    QUERY,
    at_most,
    good_config,
    good_files,
    good_tensors,
    plain_files,
    raw_safetensors,
    refused,
)

HEAD = "base_model.model.classifier.weight"
BIAS = "base_model.model.classifier.bias"
SITE = QUERY.removeprefix("base_model.model.")


def entry(shape: list[int], start: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def refused_both_ways(
    tiny: FoundationSpec, tensors: dict[str, np.ndarray], *expected: object, **config: Any
) -> None:
    """As a plain folder, and inside a bundle whose hashes are right."""
    files = plain_files(tensors, good_config(**config))
    for upload in (files, good_files(tiny, files)):
        check, where, *said = (str(e) for e in expected)
        refused(upload, tiny, check, where, *said)


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1, -64])
def test_truncated_safetensors_are_refused(tiny: FoundationSpec, keep: int) -> None:
    refused(plain_files(save(good_tensors())[:keep]), tiny, "safetensors", WEIGHTS, "cannot be read")


@pytest.mark.parametrize(
    ("header", "data"),
    [
        (b"", b""),
        (b"{", b""),
        (b"[]", b""),
        (b"\xff\xfe{}", b""),
        (b"[" * 5000, b""),
        ({"a": entry([2, 2], 0, 99)}, bytes(16)),
        ({"a": entry([2, 2], 0, 16)}, bytes(99)),
        ({"a": entry([2, 2], 8, 24)}, bytes(24)),
        ({"a": entry([2, 2], 16, 0)}, bytes(16)),
        ({"a": entry([2, 2], -16, 0)}, bytes(16)),
        ({"a": entry([9, 9], 0, 16)}, bytes(16)),
        ({"a": entry([2**40, 2**40], 0, 16)}, bytes(16)),
        ({"a": entry([2, 2], 0, 2**63)}, bytes(16)),
        ({"a": entry([2, 2], 0, 16), "b": entry([2, 2], 0, 16)}, bytes(16)),
        ({"a": entry([2, 2], 0, 16), "b": entry([2, 2], 8, 24)}, bytes(24)),
        (b'{"a":{"dtype":"I8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"I8","shape":[1],"data_offsets":[1,2]}}',
         bytes(2)),
        ({"a": {"dtype": "F32", "shape": [1]}}, bytes(4)),
        ({"a": {"dtype": "Object", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
        ({"__metadata__": {"format": 3}}, b""),
    ],
)  # fmt: skip
def test_a_header_that_lies_or_overlaps_is_refused(tiny: FoundationSpec, header: Any, data: bytes) -> None:
    refused(plain_files(raw_safetensors(header, data)), tiny, "safetensors", WEIGHTS, "cannot be read")


@pytest.mark.parametrize("length", [2**20 + 1, 10**8, 2**32, 2**63, 2**64 - 1])
def test_a_header_length_over_a_mebibyte_is_refused_before_it_is_parsed(
    tiny: FoundationSpec, length: int
) -> None:
    upload = plain_files(raw_safetensors({}, length=length))
    refused(upload, tiny, "safetensors", WEIGHTS, f"header of {length} bytes", 2**20)


def test_a_header_of_ten_thousand_tensors_over_the_same_bytes_is_refused(tiny: FoundationSpec) -> None:
    header = {f"w{i}": entry([200, 200], 0, 160000) for i in range(10**4)}
    refused(plain_files(raw_safetensors(header, bytes(160000))), tiny, "safetensors", WEIGHTS, "cannot be read")


def test_a_header_of_many_empty_tensors_is_refused_for_its_length(tiny: FoundationSpec) -> None:
    header = json.dumps({f"w{i}": entry([0], 0, 0) for i in range(30000)}).encode()
    upload = plain_files(raw_safetensors(header))
    refused(upload, tiny, "safetensors", WEIGHTS, f"header of {len(header)} bytes")


@pytest.mark.parametrize("shape", [[0, 2**62], [0, 2**62, 4], [1] * 65, [0, 2**63], [2**64 - 1, 0]])
def test_a_shape_that_numpy_cannot_hold_is_refused_by_tensor(tiny: FoundationSpec, shape: list[int]) -> None:
    size = 0 if 0 in shape else 4
    upload = plain_files(raw_safetensors({"odd": entry(shape, 0, size)}, bytes(size)))
    refused(upload, tiny, "safetensors", "odd", f"shape {shape}")


@pytest.mark.parametrize("dtype", ["I64", "I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2"])
def test_a_dtype_that_is_not_a_float_of_16_bits_or_more_is_refused(tiny: FoundationSpec, dtype: str) -> None:
    size = 8 if dtype == "I64" else 1
    upload = plain_files(raw_safetensors({"odd": entry([1], 0, size, dtype)}, bytes(size)))
    refused(upload, tiny, "safetensors", "odd", dtype, "F32")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", [f"{QUERY}.lora_A.weight", f"{QUERY}.lora_B.weight", HEAD, BIAS])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_nan_and_infinity_are_refused_by_tensor(tiny: FoundationSpec, bad: float, name: str, dtype: Any) -> None:
    tensors = {n: t.astype(dtype) for n, t in good_tensors().items()}
    tensors[name].flat[-1] = bad
    refused_both_ways(tiny, tensors, "finite", name, np.float32(bad))


def test_fp64_beyond_fp32_is_refused_and_fp16_at_its_largest_is_accepted(tiny: FoundationSpec) -> None:
    tensors = good_tensors()
    large = {**tensors, HEAD: tensors[HEAD].astype(np.float64) * 1e300}
    refused_both_ways(tiny, large, "finite", HEAD, "inf")
    halves = {n: np.full_like(t, 65504, dtype=np.float16) for n, t in tensors.items()}
    adapter = open_bundle(pack(plain_files(halves)), LIMITS, tiny).adapter(tiny, LIMITS.max_rank)
    assert adapter.weights.head["classifier.weight"].max() == 65504
    assert np.isfinite(adapter.weights.sites["encoder.layer.0.attention.self.query"].b).all()


def test_a_scale_that_takes_lora_b_out_of_fp32_is_refused_by_site(tiny: FoundationSpec) -> None:
    refused_both_ways(tiny, good_tensors(), "finite", SITE.removeprefix("bert."), "scale", lora_alpha=1e308)


@pytest.mark.parametrize(
    ("name", "shape", "wanted"),
    [
        (f"{QUERY}.lora_A.weight", (4, 31), (4, 32)),
        (f"{QUERY}.lora_A.weight", (32, 4), (4, 32)),
        (f"{QUERY}.lora_A.weight", (0, 32), (4, 32)),
        (f"{QUERY}.lora_B.weight", (32, 5), (32, 4)),
        (f"{QUERY}.lora_B.weight", (32, 4, 1), (32, 4)),
        (f"{QUERY}.lora_B.weight", (), (32, 4)),
        (BIAS, (3, 1), (3,)),
    ],
)
def test_a_tensor_of_the_wrong_shape_is_refused_with_both_shapes(
    tiny: FoundationSpec, name: str, shape: tuple[int, ...], wanted: tuple[int, ...]
) -> None:
    tensors = {**good_tensors(), name: np.zeros(shape, np.float32)}
    short = name.removeprefix("base_model.model.")
    refused_both_ways(tiny, tensors, "sites", short, f"shape {list(shape)}", f"expected {list(wanted)}")


@pytest.mark.parametrize("name", [f"{QUERY}.lora_A.weight", f"{QUERY}.lora_B.weight", BIAS])
def test_a_missing_tensor_is_refused_by_name_and_shape(tiny: FoundationSpec, name: str) -> None:
    tensors = good_tensors()
    shape = list(tensors.pop(name).shape)
    refused_both_ways(tiny, tensors, "sites", name.removeprefix("base_model.model."), "missing", shape)


@pytest.mark.parametrize(
    "name",
    [
        "base_model.model.bert.encoder.layer.9.attention.self.query.lora_A.weight",
        "base_model.model.bert.encoder.layer.0.attention.self.key.lora_A.weight",
        "base_model.model.bert.pooler.dense.weight",
        f"{QUERY}.lora_magnitude_vector.weight",
        f"{QUERY}.lora_A.other.weight",
        "", "..", "__class__",
    ],
)  # fmt: skip
def test_a_tensor_of_an_unknown_site_is_refused_by_name(tiny: FoundationSpec, name: str) -> None:
    tensors = {**good_tensors(), name: np.zeros((4, 32), np.float32)}
    refused_both_ways(tiny, tensors, "sites", name.removeprefix("base_model.model."), "maps to no site")


def test_two_names_for_one_tensor_are_refused(tiny: FoundationSpec) -> None:
    tensors = good_tensors()
    tensors["classifier.weight"] = tensors[HEAD]
    refused(plain_files(tensors), tiny, "sites", WEIGHTS, "two tensors have the same name")


@pytest.mark.parametrize("targets", [["nothing"], r"bert\.nothing", ["embeddings"]])
def test_targets_that_match_nothing_are_refused(tiny: FoundationSpec, targets: Any) -> None:
    refused_both_ways(tiny, good_tensors(), "sites", "target_modules", repr(targets), target_modules=targets)


def test_an_adapter_of_the_head_itself_is_refused_by_module(tiny: FoundationSpec) -> None:
    tensors = good_tensors()
    tensors |= {
        "base_model.model.classifier.lora_A.weight": np.zeros((4, 32), np.float32),
        "base_model.model.classifier.lora_B.weight": np.zeros((3, 4), np.float32),
    }
    config = {"target_modules": ["query", "value", "classifier"], "modules_to_save": None}
    refused_both_ways(tiny, tensors, "sites", "classifier", "belongs to the head", **config)


def test_a_rank_over_the_limit_is_refused_with_both_numbers(tiny: FoundationSpec) -> None:
    refused_both_ways(tiny, good_tensors(rank=17), "rank", "query", "rank 17", "at most 16", r=17)


def test_labels_that_are_not_the_head_s_outputs_are_refused_with_both_counts(tiny: FoundationSpec) -> None:
    files = plain_files(good_tensors(labels=5))
    refused(good_files(tiny, files), tiny, "labels", "classifier.", "5 outputs", "3 labels")
    refused(files, tiny, "labels", "classifier.", "5 outputs", "2 labels", plain=PlainFields(labels=("a", "b")))


@pytest.mark.parametrize("name", [HEAD, BIAS])
def test_a_head_that_declares_a_thousand_million_labels_is_refused_at_once(
    tiny: FoundationSpec, name: str
) -> None:
    """Default labels are one string each: the count must not come from a shape that no bytes stand behind."""
    tensors = good_tensors()
    del tensors[HEAD], tensors[BIAS]
    tensors[name] = np.zeros((10**9, 0), np.float32)
    refused(plain_files(tensors), tiny, "sites", "classifier", "shape [1000000000, 0]", "labels")


def test_a_bias_alone_cannot_name_more_labels_than_are_served(tiny: FoundationSpec) -> None:
    tensors = good_tensors()
    del tensors[HEAD]
    tensors[BIAS] = np.zeros(2**16 + 1, np.float16)
    refused(plain_files(tensors), tiny, "labels", "classifier.bias", 2**16 + 1, 2**16)


def test_another_foundation_s_bundle_is_refused_with_both_fingerprints(tiny: FoundationSpec) -> None:
    other = "sha256:" + "0" * 64
    foundation = {"fingerprint": other, "name": "other/bert", "revision": None}
    upload = good_files(tiny, foundation=foundation)
    refused(upload, tiny, "foundation", "fingerprint", other, "other/bert", tiny.fingerprint, tiny.name)


def test_a_head_of_another_task_s_class_is_refused_with_both_classes(tiny: FoundationSpec) -> None:
    upload = good_files(tiny, head=HeadSpec("hf", class_name="BertForTokenClassification"))
    classes = "BertForTokenClassification", "BertForSequenceClassification"
    refused(upload, tiny, "sites", "head.class", *classes)


@pytest.mark.parametrize("targets", [(), ("encoder.layer.0.attention.self.query",)])
def test_a_manifest_that_names_other_targets_is_refused_by_module(
    tiny: FoundationSpec, targets: tuple[str, ...]
) -> None:
    upload = good_files(tiny, targets=targets)
    refused(
        upload, tiny, "sites", "targets", "encoder.layer.0.attention.self.", f"({len(targets)} and 6 modules)"
    )


def test_a_length_beyond_the_foundation_is_refused_with_both_numbers(tiny: FoundationSpec) -> None:
    upload = good_files(tiny)
    long = upload | {"bundle.json": upload["bundle.json"].replace(b'"max_length":64', b'"max_length":65')}
    refused(long, tiny, "schema", "max_length", 65, 64)


def test_the_largest_accepted_upload_is_read_in_a_few_times_its_size(tiny: FoundationSpec) -> None:
    size = LIMITS.max_unpacked_bytes - 4096
    data = pack(plain_files(raw_safetensors({"a": entry([size // 2], 0, size, "F16")}, bytes(size))))
    with at_most(6 * size / 2**20), pytest.raises(Rejected):
        open_bundle(data, LIMITS, tiny)
