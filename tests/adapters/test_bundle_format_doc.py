"""docs/bundle-format.md says what the code does: its example opens, its digest is right, its tables are whole."""

from __future__ import annotations

import hashlib
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import rfc8785
from PIL import Image
from safetensors.numpy import save

from rootstock.adapters.bundle import Bundle, Limits, open_bundle, pack
from rootstock.adapters.bundle.archive import CONFIG, GOLDEN, MANIFEST, MEMBERS, WEIGHTS
from rootstock.adapters.bundle.golden import MAX_FILE_BYTES, MAX_INPUTS, read_golden
from rootstock.adapters.bundle.kinds.methods import CONVERTED, NATIVE, REFUSED
from rootstock.adapters.bundle.manifest import MAX_LABELS
from rootstock.adapters.bundle.names.former_names import former_name
from rootstock.adapters.bundle.plain.extras import FILES, FOLDERS
from rootstock.adapters.media import ImageFile
from rootstock.adapters.spec import POOLINGS, PROBLEM_TYPES, TASKS, FoundationSpec

TEXT = Path(__file__).parents[2].joinpath("docs", "bundle-format.md").read_text(encoding="utf-8")
EXAMPLE = TEXT.partition("## A worked example")[2]
CONFIG_BLOCK, GOLDEN_BLOCK, MANIFEST_BLOCK = re.findall(r"```json\n(.*?)\n```", EXAMPLE, re.DOTALL)
[FILES_BLOCK] = re.findall(
    r"```json\n(.*?)\n```", TEXT.partition("## `golden.json`")[2].partition("\n## ")[0], re.DOTALL
)
[DIGEST] = re.findall(r"```text\n(sha256:[0-9a-f]{64})\n```", EXAMPLE)


@pytest.fixture(scope="module")
def example(spec: FoundationSpec) -> Bundle:
    tensors = {"head.weight": np.zeros((2, 384), np.float32), "head.bias": np.float32([0.5, -0.5])}
    files = {
        CONFIG: CONFIG_BLOCK.encode(),
        WEIGHTS: save(tensors),
        GOLDEN: GOLDEN_BLOCK.encode(),
        MANIFEST: MANIFEST_BLOCK.encode(),
    }
    return open_bundle(pack(files), Limits(), spec)


def test_the_example_opens_and_is_an_adapter_of_the_default_foundation(
    example: Bundle, spec: FoundationSpec
) -> None:
    adapter = example.adapter(spec, 64)
    assert adapter.labels == ("negative", "positive")
    golden = example.golden()
    assert golden is not None
    for output in golden.outputs:
        assert (output == adapter.weights.head["head.bias"]).all()


def test_the_example_s_digest_is_the_one_that_the_page_shows(example: Bundle) -> None:
    assert example.digest == DIGEST


def test_another_program_gets_that_digest_from_the_page_alone() -> None:
    assert "sha256:" + hashlib.sha256(rfc8785.dumps(json.loads(MANIFEST_BLOCK))).hexdigest() == DIGEST


def test_the_example_s_small_facts_are_right(example: Bundle) -> None:
    assert f"{len(CONFIG_BLOCK)} bytes and no line end" in EXAMPLE
    [begins] = re.findall(r"form begins `(.*?)`", EXAMPLE)
    assert example.manifest.to_bytes().startswith(begins.encode())


def test_the_tables_name_every_member_and_every_key(example: Bundle) -> None:
    first_cells = re.findall(r"^\| `([\w.]+)` \|", TEXT, re.MULTILINE)
    assert set(MEMBERS) <= set(first_cells)
    manifest_table = TEXT.partition("## `bundle.json`")[2].partition("### The head")[0]
    keys = re.findall(r"^\| `(\w+)` \|", manifest_table, re.MULTILINE)
    assert sorted(keys) == sorted(example.manifest.to_json())
    for word in (*TASKS, *PROBLEM_TYPES, *POOLINGS):
        assert f"`{word}`" in TEXT


def test_the_known_extras_are_named() -> None:
    table = TEXT.partition("### Known extras")[2].partition("### JSON")[0]
    named = set(re.findall(r"`([^`]+)`", table))
    assert {*FILES, *(f"{folder}/" for folder in FOLDERS)} <= named


def test_the_numbers_are_the_code_s(example: Bundle) -> None:
    limits = Limits()
    for size in (limits.max_bundle_bytes, limits.max_unpacked_bytes, limits.max_text_bytes):
        assert f"{size // 2**20} MiB for" in TEXT
    assert f"1 to {MAX_LABELS:,} of them" in TEXT
    assert f"1 to {MAX_INPUTS} (" in TEXT


def test_the_golden_set_of_images_opens_and_its_file_is_an_image() -> None:
    golden = read_golden(FILES_BLOCK.encode(), "image")
    [file] = golden.inputs
    assert isinstance(file, ImageFile)
    assert Image.open(io.BytesIO(file.data)).format == "PNG"
    assert f"of at most {MAX_FILE_BYTES:,} bytes" in TEXT


def test_the_former_names_are_those_of_the_table() -> None:
    table = TEXT.partition("### Former names")[2].partition("### Options")[0]
    for model_type, name in (
        ("vit", "layers.N.x"), ("beit", "attention.q_proj"), ("dinov2", "attention.o_proj"), ("swin", "mlp.fc1"),
        ("swin", "attention.q_proj"), ("clip", "encoder.x"), ("dinov3_vit", "model.layer.N.x"),
        ("dinov3_convnext", "model.stages.N.x"),
    ):  # fmt: skip
        former = former_name(model_type, name)
        assert former != name
        assert f"`{model_type}`" in table
        assert f"`{former.removesuffix('x')}`" in table
        assert f"`{name.removesuffix('x')}`" in table


def test_every_kind_is_named_where_it_belongs() -> None:
    parts = {
        NATIVE: TEXT.partition("### Kinds\n")[2].partition("### Options")[0],
        CONVERTED: TEXT.partition("### Kinds that become LoRA")[2].partition("The server converts")[0],
        tuple(REFUSED): TEXT.partition("### Kinds that cannot be served")[2].partition("## Checks")[0],
    }
    for kinds, text in parts.items():
        assert set(re.findall(r"`([A-Z0-9_]{3,})`", text)) == set(kinds)


def test_the_checks_are_in_the_order_of_the_design() -> None:
    table = TEXT.partition("## Checks on upload")[2].partition("## A worked example")[0]
    order = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    first = list(dict.fromkeys(order))
    assert first == [
        "size", "members", "schema", "signature", "names", "conversion", "safetensors", "sites", "labels",
        "finite", "rank", "foundation", "template", "golden",
    ]  # fmt: skip
