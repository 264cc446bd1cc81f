"""A stored bundle is described from its text alone, and damage to that text is an error that names the member."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load

from rootstock.adapters.bundle import Limits, open_bundle
from rootstock.adapters.bundle.archive import CARD, MANIFEST, WEIGHTS
from rootstock.adapters.bundle.bundle_file import BundleDescription, open_bundle_file
from rootstock.adapters.foundation.architecture import describe
from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.adapters.spec import Rejected
from rootstock.service.composition.demo_adapters import DEMO
from tests.attacks.forge import tiny_bert
from tests.peft_adapters import peft_model, save_adapter

DEMO_BUNDLES = sorted(DEMO.glob("*.zip"))
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("lora", {"r": 4, "rank_pattern": {"layer.1.*query": 7}}),
    "dora": ("dora", {"r": 3, "use_dora": True}),
    "adalora": ("adalora", {"kind": "ADALORA"}),
    "ia3": ("ia3", {"kind": "IA3"}),
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> FoundationFiles:
    return tiny_bert(tmp_path_factory.mktemp("tiny"))


def described(data: bytes) -> BundleDescription:
    with open_bundle_file(io.BytesIO(data), Limits()) as bundle:
        return bundle.describe()


def read_all(data: bytes) -> None:
    with open_bundle_file(io.BytesIO(data), Limits()) as bundle:
        bundle.describe()
        bundle.card()


def members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


@pytest.mark.parametrize("path", DEMO_BUNDLES, ids=lambda path: path.stem)
def test_a_description_repeats_the_manifest_and_counts_the_tensors(path: Path) -> None:
    files = members(path.read_bytes())
    stated, tensors = json.loads(files[MANIFEST]), load(files[WEIGHTS])
    description = described(path.read_bytes())
    assert description.manifest.to_json() == stated
    assert description.parameters == sum(tensor.size for tensor in tensors.values())
    assert list(description.ranks) == sorted({t.shape[0] for name, t in tensors.items() if "lora_A" in name})
    assert (description.card, description.golden) == (True, True)
    with open_bundle_file(io.BytesIO(path.read_bytes()), Limits()) as bundle:
        assert bundle.card() == files[CARD]


@pytest.mark.parametrize("name", KINDS)
def test_kind_and_ranks_are_those_that_peft_saved(name: str, tiny: FoundationFiles, tmp_path: Path) -> None:
    kind, config = KINDS[name]
    adapter = save_adapter(tiny.folder, tmp_path, "SEQ_CLS", 0, **config)
    description = described(open_bundle(adapter.zip(), Limits(), describe(tiny)).to_zip())
    module_ranks = {
        layer.r["default"]
        for layer in peft_model(tiny.folder, adapter).modules()
        if hasattr(layer, "lora_A") and isinstance(getattr(layer, "r", None), dict) and layer.r
    }
    assert (description.kind, list(description.ranks)) == (kind, sorted(module_ranks))
    assert description.golden is False


def test_weights_are_not_unpacked_beyond_their_header() -> None:
    data = DEMO_BUNDLES[0].read_bytes()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        info = archive.getinfo(WEIGHTS)
    last = info.header_offset + info.compress_size
    damaged = data[: last - 5000] + bytes(4000) + data[last - 1000 :]
    with pytest.raises(zipfile.BadZipFile):
        members(damaged)
    assert described(damaged) == described(data)


@pytest.mark.parametrize("name", [MANIFEST, CARD, WEIGHTS, "adapter_config.json"])
@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff" * 64, b'\x0f\0\0\0\0\0\0\0{"a":{"shape":1}}'])
def test_damaged_text_is_refused_by_name(name: str, content: bytes | None) -> None:
    files = members(DEMO_BUNDLES[0].read_bytes())
    if content is None:
        del files[name]
    else:
        files[name] = content
    with pytest.raises(Rejected) as refused:
        read_all(zipped(files))
    # A fault of one tensor names the tensor.
    assert refused.value.where.partition(":")[0] in ((name, "a") if name == WEIGHTS else (name,))


def test_a_file_that_is_not_a_zip_and_a_text_over_the_limit_are_refused() -> None:
    with pytest.raises(Rejected, match="not a zip"), open_bundle_file(io.BytesIO(b"PK"), Limits()):
        pass
    small = Limits(max_text_bytes=100)
    data = io.BytesIO(DEMO_BUNDLES[0].read_bytes())
    with pytest.raises(Rejected, match="100 bytes"), open_bundle_file(data, small):
        pass


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, 1, 99])
def test_a_member_whose_method_of_compression_no_bundle_has_is_refused_unread(method: int) -> None:
    data = zipped(members(DEMO_BUNDLES[0].read_bytes()))
    entry = data.rindex(b"PK\x01\x02", 0, data.rindex(WEIGHTS.encode()))
    damaged = data[: entry + 10] + method.to_bytes(2, "little") + data[entry + 12 :]
    with pytest.raises(Rejected, match=f"members: {WEIGHTS}: compression method {method} is not supported"):
        read_all(damaged)
