"""A bundle reads back as it was written, under one digest; a plain PEFT folder gets the manifest it lacks."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.numpy import load, save

from rootstock.adapters.bundle import (
    Bundle,
    Golden,
    Limits,
    Manifest,
    PlainFields,
    open_bundle,
    pack,
    write_bundle,
)
from rootstock.adapters.bundle.archive import CARD, CONFIG, GOLDEN, MANIFEST, WEIGHTS
from rootstock.adapters.bundle.golden import read_golden
from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.adapters.spec import FoundationSpec, HeadSpec, Preprocessing
from rootstock.adapters.strict_json.canonical import canonical, sha256
from tests.peft_adapters import PeftAdapter, save_adapter

KINDS = {
    "SEQ_CLS": {"labels": 4, "r": 4, "lora_alpha": 12, "rank_pattern": {"layer.0.attention.self.query": 2}},
    "TOKEN_CLS": {"labels": 2, "target_modules": ["query", "dense"], "use_rslora": True},
    "FEATURE_EXTRACTION": {"target_modules": "all-linear", "r": 2},
}
GIVEN = Golden(("a text", ("one", "another")), (np.float32([0.1, -1e-30, 3]), np.float32([1, 2, 3.4028235e38])))


@pytest.fixture(scope="module")
def made(foundation: FoundationFiles, tmp_path_factory: pytest.TempPathFactory) -> dict[str, PeftAdapter]:
    root: Path = tmp_path_factory.mktemp("peft")
    return {t: save_adapter(foundation.folder, root / t, t, 1, **kind) for t, kind in KINDS.items()}


@pytest.fixture(scope="module")
def plain(made: dict[str, PeftAdapter], spec: FoundationSpec) -> Bundle:
    return open_bundle(made["SEQ_CLS"].zip(), Limits(), spec)


@pytest.fixture(scope="module")
def written(plain: Bundle, spec: FoundationSpec) -> Bundle:
    """The bundle that a trainer would write of the same two files."""
    manifest = Manifest(
        task="text-classification",
        problem_type="multi_label_classification",
        head=plain.manifest.head,
        labels=("naïve", "漢字", "☕", ""),
        preprocessing=Preprocessing(100, "left", "query: "),
        foundation={"fingerprint": spec.fingerprint, "name": spec.name, "revision": spec.revision},
        targets=plain.manifest.targets,
        files={},
        evaluation={"f1": 0.1 + 0.2, "support": {"naïve": 12}},
        provenance={"seeds": [1, 2], "commit": "0" * 40},
        license="MIT",
    )
    return write_bundle(manifest, {**plain.files, GOLDEN: GIVEN.to_bytes(), CARD: "# Kärtchen\n".encode()})


def test_a_written_bundle_opens_as_what_was_written(written: Bundle, spec: FoundationSpec) -> None:
    opened = open_bundle(written.to_zip(), Limits(), spec)
    assert opened == written
    assert opened.digest == written.digest == sha256(written.manifest.to_bytes())
    assert opened.warnings == ()
    golden = opened.golden()
    assert golden is not None
    assert golden.inputs == GIVEN.inputs
    assert all((a == b).all() for a, b in zip(golden.outputs, GIVEN.outputs, strict=True))


def test_the_adapter_says_what_the_manifest_says(written: Bundle, spec: FoundationSpec) -> None:
    adapter, manifest = written.adapter(spec, 64), written.manifest
    assert adapter.digest == written.digest
    assert (adapter.task, adapter.problem_type, adapter.labels, adapter.head, adapter.preprocessing) == (
        manifest.task, manifest.problem_type, manifest.labels, manifest.head, manifest.preprocessing,
    )  # fmt: skip


def test_the_same_content_gives_the_same_zip_and_digest_whatever_its_order(written: Bundle) -> None:
    again = write_bundle(written.manifest, dict(reversed(list(written.files.items()))))
    assert again.digest == written.digest
    assert again.to_zip() == written.to_zip()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("folder", ["", "adapter/", "./"])
@pytest.mark.parametrize("backwards", [False, True])
def test_the_digest_does_not_depend_on_how_it_was_zipped(
    written: Bundle, spec: FoundationSpec, method: int, folder: str, backwards: bool
) -> None:
    files = {**written.files, MANIFEST: written.manifest.to_bytes()}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        if folder:
            archive.writestr(zipfile.ZipInfo(folder, (2001, 2, 3, 4, 5, 6)), b"")
        for name in sorted(files, reverse=backwards):
            archive.writestr(folder + name, files[name])
        archive.comment = b"zipped elsewhere"
    assert open_bundle(out.getvalue(), Limits(), spec).digest == written.digest


def test_the_digest_does_not_depend_on_how_bundle_json_is_laid_out(written: Bundle, spec: FoundationSpec) -> None:
    value = dict(reversed(list(written.manifest.to_json().items())))
    files = {**written.files, MANIFEST: json.dumps(value, indent=7).encode()}
    opened = open_bundle(pack(files), Limits(), spec)
    assert opened.digest == written.digest
    assert opened.to_zip() == written.to_zip()


@pytest.mark.parametrize("member", [CONFIG, WEIGHTS, GOLDEN, CARD])
def test_any_other_byte_in_any_file_is_another_digest(written: Bundle, member: str) -> None:
    changed = write_bundle(written.manifest, {**written.files, member: written.files[member] + b" "})
    assert changed.digest != written.digest


@pytest.mark.parametrize("task_type", KINDS)
def test_a_plain_folder_gets_a_manifest_that_agrees_with_its_files(
    made: dict[str, PeftAdapter], spec: FoundationSpec, task_type: str
) -> None:
    bundle = open_bundle(made[task_type].zip(), Limits(), spec)
    manifest = bundle.manifest
    on_disk = {path.name: sha256(path.read_bytes()) for path in made[task_type].folder.iterdir()}
    assert manifest.files == on_disk
    assert set(on_disk) == {CONFIG, WEIGHTS, CARD}
    assert manifest.foundation == {"fingerprint": None, "name": spec.name, "revision": None}
    assert manifest.to_json()["golden"] == "none"
    assert bundle.golden() is None
    assert bundle.warnings[0].startswith("a plain PEFT folder has no fingerprint and no golden set")
    assert manifest.preprocessing == Preprocessing(256 if task_type == "FEATURE_EXTRACTION" else 512)


@pytest.mark.parametrize(
    ("task_type", "task", "labels", "problem", "head"),
    [
        ("SEQ_CLS", "text-classification", 4, "single_label_classification",
         HeadSpec("hf", "BertForSequenceClassification")),
        ("TOKEN_CLS", "token-classification", 2, None, HeadSpec("hf", "BertForTokenClassification")),
        ("FEATURE_EXTRACTION", "feature-extraction", 0, None, HeadSpec("linear", pooling="mean", normalize=True)),
    ],
)  # fmt: skip
def test_a_plain_folder_s_task_labels_and_head_follow_its_task_type(
    made: dict[str, PeftAdapter], spec: FoundationSpec, task_type: str, task: str, labels: int, problem: str,
    head: HeadSpec,
) -> None:  # fmt: skip
    manifest = open_bundle(made[task_type].zip(), Limits(), spec).manifest
    assert manifest.labels == tuple(f"LABEL_{i}" for i in range(labels))
    assert (manifest.task, manifest.problem_type, manifest.head) == (task, problem, head)


def test_form_fields_take_the_place_of_the_defaults(made: dict[str, PeftAdapter], spec: FoundationSpec) -> None:
    fields = PlainFields("text-classification", ("a", "b", "c", "d"), "multi_label_classification", 99)
    manifest = open_bundle(made["SEQ_CLS"].zip(), Limits(), spec, fields).manifest
    assert manifest.labels == fields.labels
    assert manifest.problem_type == fields.problem_type
    assert manifest.preprocessing == Preprocessing(99)


def test_a_field_that_says_the_default_gives_the_same_digest(
    made: dict[str, PeftAdapter], spec: FoundationSpec, plain: Bundle
) -> None:
    fields = PlainFields("text-classification", plain.manifest.labels, "single_label_classification", 512)
    assert open_bundle(made["SEQ_CLS"].zip(), Limits(), spec, fields).digest == plain.digest


def test_one_label_is_a_regression_by_default(plain: Bundle, spec: FoundationSpec) -> None:
    tensors = load(plain.files[WEIGHTS])
    one = {n: np.ascontiguousarray(t[:1]) if "classifier" in n else t for n, t in tensors.items()}
    bundle = open_bundle(pack({**plain.files, WEIGHTS: save(one)}), Limits(), spec)
    assert (bundle.manifest.labels, bundle.manifest.problem_type) == (("LABEL_0",), "regression")


def test_a_plain_folder_reopens_as_a_bundle_with_its_digest(plain: Bundle, spec: FoundationSpec) -> None:
    again = open_bundle(plain.to_zip(), Limits(), spec)
    assert again.digest == plain.digest
    assert again.files == plain.files
    assert again.adapter(spec, 64).labels == plain.adapter(spec, 64).labels


@pytest.mark.parametrize("task_type", KINDS)
def test_the_adapter_holds_the_tensors_that_peft_saved(
    made: dict[str, PeftAdapter], spec: FoundationSpec, task_type: str
) -> None:
    adapter = open_bundle(made[task_type].zip(), Limits(), spec).adapter(spec, 64)
    config = json.loads((made[task_type].folder / CONFIG).read_text())
    left = load((made[task_type].folder / WEIGHTS).read_bytes())
    prefix = "base_model.model." + ("" if task_type == "FEATURE_EXTRACTION" else "bert.")
    for site, pair in adapter.weights.sites.items():
        a, b = (left.pop(f"{prefix}{site}.lora_{x}.weight") for x in "AB")
        alpha, rank = config["lora_alpha"], a.shape[0]
        scale = alpha / (np.sqrt(rank) if config["use_rslora"] else rank)
        assert (pair.a == a).all()
        assert np.allclose(pair.b, b.T * scale, rtol=1e-6)
    for name, tensor in adapter.weights.head.items():
        assert (left.pop(f"base_model.model.{name}") == tensor).all()
    assert left == {}


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_float_widths_are_read_as_fp32(plain: Bundle, spec: FoundationSpec, dtype: type) -> None:
    tensors = {n: t.astype(dtype) for n, t in load(plain.files[WEIGHTS]).items()}
    adapter = open_bundle(pack({**plain.files, WEIGHTS: save(tensors)}), Limits(), spec).adapter(spec, 64)
    assert {t.dtype for t in adapter.weights.head.values()} == {np.dtype(np.float32)}
    wanted = tensors["base_model.model.classifier.weight"].astype(np.float32)
    assert (adapter.weights.head["classifier.weight"] == wanted).all()


@pytest.mark.parametrize(
    ("task", "head", "tensors"),
    [
        ("text-classification", HeadSpec("linear", pooling="cls"), {"head.weight": (3, 384), "head.bias": (3,)}),
        ("feature-extraction", HeadSpec("linear", pooling="mean"), {"head.weight": (16, 384)}),
        (
            "feature-extraction",
            HeadSpec("linear", normalize=True),
            {"head.weight": (16, 384), "head.bias": (16,)},
        ),
        (
            "token-classification",
            HeadSpec("hf", "BertForTokenClassification"),
            {"classifier.weight": (3, 384), "classifier.bias": (3,)},
        ),
    ],
)
def test_a_head_alone_is_a_bundle(
    spec: FoundationSpec, task: str, head: HeadSpec, tensors: dict[str, tuple[int, ...]]
) -> None:
    manifest = Manifest(
        task=task,
        problem_type="single_label_classification" if task == "text-classification" else None,
        head=head,
        labels=() if task == "feature-extraction" else ("a", "b", "c"),
        preprocessing=Preprocessing(64),
        foundation={"fingerprint": spec.fingerprint, "name": None, "revision": None},
        targets=(),
        files={},
    )
    weights = save({n: np.ones(shape, np.float32) for n, shape in tensors.items()})
    bundle = write_bundle(manifest, {CONFIG: b'{"peft_type": null, "task_type": null}', WEIGHTS: weights})
    adapter = open_bundle(bundle.to_zip(), Limits(), spec).adapter(spec, 64)
    assert adapter.weights.sites == {}
    assert {n: t.shape for n, t in adapter.weights.head.items()} == tensors


@settings(max_examples=100, deadline=None)
@given(st.lists(arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 4)),
       elements=st.floats(width=32, allow_nan=False, allow_infinity=False)), min_size=1, max_size=4))  # fmt: skip
def test_golden_outputs_read_back_bit_for_bit(outputs: list[np.ndarray]) -> None:
    golden = Golden(tuple("x" for _ in outputs), tuple(outputs))
    read = read_golden(golden.to_bytes(), "text")
    assert all((a == b).all() and a.dtype == b.dtype for a, b in zip(read.outputs, outputs, strict=True))


def test_bundle_json_is_stored_in_its_canonical_form(written: Bundle) -> None:
    with zipfile.ZipFile(io.BytesIO(written.to_zip())) as archive:
        stored = archive.read(MANIFEST)
    assert stored == canonical(json.loads(stored))
    assert sha256(stored) == written.digest
