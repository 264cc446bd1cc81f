"""`ROOTSTOCK_PRECISION=auto`: int8 where it pays and every golden set passes, fp32 otherwise."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rootstock.adapters.bundle import Bundle, Limits, open_bundle
from rootstock.adapters.bundle.archive import GOLDEN
from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.adapters.home.bulk_import import import_bundles
from rootstock.adapters.registry import SqlRegistry
from rootstock.adapters.spec import FoundationSpec
from rootstock.adapters.store.folder import FolderStore
from rootstock.service.composition.demo_adapters import DEMO
from rootstock.service.exports.cache import export_path
from rootstock.service.exports.int8_check import GoldenReplay
from rootstock.service.exports.precision_choice import PASSED_FILE, PrecisionChoice, choose_precision
from rootstock.service.exports.processor import has_int8_products
from rootstock.service.tolerance import TOLERANCES, Tolerance
from tests.serve_process import serving

Choose = Callable[..., PrecisionChoice]


@pytest.fixture
def home(export_folder: Path, int8_folder: Path, spec: FoundationSpec, tmp_path: Path) -> Path:
    """A home with both exports and the demo adapters, imported, which are verified in no precision."""
    for precision, folder in (("fp32", export_folder), ("int8", int8_folder)):
        place = export_path(tmp_path, spec.fingerprint, precision)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(folder, target_is_directory=True)
    list(import_bundles(sorted(DEMO.glob("*.zip")), tmp_path, spec, Limits()))
    return tmp_path


@pytest.fixture
def choose(home: Path, foundation: FoundationFiles) -> Choose:
    def call(fast: bool = True) -> PrecisionChoice:
        return choose_precision(foundation, (home,), home, Limits(), 1, lambda: fast)

    return call


def publish(home: Path, spec: FoundationSpec, name: str, verification: dict[str, Any], golden: bool) -> None:
    bundle = open_bundle((DEMO / "entities.zip").read_bytes(), Limits(), spec)
    if not golden:
        files = {n: data for n, data in bundle.files.items() if n != GOLDEN}
        hashes = {n: h for n, h in bundle.manifest.files.items() if n != GOLDEN}
        bundle = Bundle(replace(bundle.manifest, files=hashes), files)
        FolderStore(home / "store").put(bundle.digest, bundle.to_zip())
    registry = SqlRegistry(f"sqlite:///{home / 'registry.db'}")
    registry.publish(name, bundle.digest, task="token-classification", verification=verification, size=1)
    registry.close()


def test_int8_is_chosen_where_all_golden_sets_pass_and_a_set_that_has_passed_is_not_run_again(
    choose: Choose, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert choose().precision == "int8"
    (passed,) = json.loads((home / PASSED_FILE).read_text(encoding="utf-8")).values()
    assert len(passed) == 3
    # A replay would fail now.
    monkeypatch.setitem(TOLERANCES, "int8", Tolerance(1e-6, 0.0, coarse=True))
    assert choose().precision == "int8"
    for damaged in ("not JSON", '{"a": 1}', "[]"):
        (home / PASSED_FILE).write_text(damaged, encoding="utf-8")
        kept = choose()
        assert kept.precision == "fp32"
        assert "entities@1 does not pass in int8: golden: golden.json: outputs[0]" in kept.reason


def test_a_start_that_is_stopped_keeps_the_notes_of_the_sets_that_have_passed(
    choose: Choose, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replay, done = GoldenReplay.outputs, []

    def stop_at_third(self: GoldenReplay, *arguments: Any) -> Any:
        done.append(arguments)
        if len(done) == 3:
            raise KeyboardInterrupt
        return replay(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(GoldenReplay, "outputs", stop_at_third)
        with pytest.raises(KeyboardInterrupt):
            choose()
    (passed,) = json.loads((home / PASSED_FILE).read_text(encoding="utf-8")).values()
    assert len(passed) == 2


def test_a_set_that_cannot_be_computed_keeps_fp32(choose: Choose, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(GoldenReplay, "outputs", fail)
    kept = choose()
    assert (kept.precision, kept.reason) == ("fp32", "entities@1 cannot be checked: out of memory")


def test_an_adapter_that_nothing_can_check_keeps_fp32_unless_a_server_in_int8_has_verified_it(
    choose: Choose, home: Path, spec: FoundationSpec
) -> None:
    publish(home, spec, "verified", {"precision": "int8"}, golden=False)
    assert choose().precision == "int8"
    publish(home, spec, "bare", {"precision": "fp32"}, golden=False)
    kept = choose()
    assert kept.precision == "fp32"
    assert "bare@1" in kept.reason
    assert "has no golden set; publish it with one" in kept.reason


def test_fp32_is_kept_without_an_export_and_on_a_processor_without_8_bit_products(
    choose: Choose, home: Path, spec: FoundationSpec
) -> None:
    assert choose(fast=False) == PrecisionChoice(
        "fp32", "the processor has no products of 8-bit numbers, so int8 is no faster"
    )
    export_path(home, spec.fingerprint, "int8").unlink()
    assert "`rootstock foundation export --int8` makes one" in choose().reason


@pytest.mark.parametrize(
    ("line", "has"),
    [
        ("flags\t\t: fpu avx512_vnni avx512_bf16", True),
        ("flags\t\t: fpu avx2 avx512f", False),
        ("Features\t: fp asimd asimddp", True),
        ("model name\t: avx512_vnni", False),
    ],
)
def test_the_products_of_a_processor_are_read_from_its_flags(line: str, has: bool, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{line}\n", encoding="utf-8")
    assert has_int8_products(tmp_path / "cpuinfo") is has
    assert not has_int8_products(tmp_path / "none")


@pytest.mark.skipif(not has_int8_products(), reason="a processor without 8-bit products keeps fp32")
def test_a_server_that_chooses_says_which_precision_it_serves(home: Path) -> None:
    settings = {"ROOTSTOCK_PRECISION": "auto", "ROOTSTOCK_RUNNER": "onnx", "ROOTSTOCK_DEMO": "false"}
    with serving(home, "uvicorn", **settings) as (_, client):
        assert 'precision="int8"' in client.get("/metrics").text
        assert client.get("/v1/limits").json()["precision"] == "int8"
        answer = client.post("/v1/predict", json={"model": "entities", "inputs": "Ada Lovelace met Babbage."})
        assert answer.status_code == 200
