"""The calibration of a bundle: a round trip keeps it, other bundles lack it, and a wrong one is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from rootstock.adapters.bundle import Bundle, Limits, open_bundle, write_bundle
from rootstock.adapters.bundle.manifest import read_manifest
from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.adapters.spec import Calibration, FoundationSpec, Rejected
from tests.peft_adapters import save_adapter


@pytest.fixture(scope="module")
def plain(foundation: FoundationFiles, spec: FoundationSpec, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    saved = save_adapter(
        foundation.folder, tmp_path_factory.mktemp("saved") / "one", "SEQ_CLS", 1, target_modules=["query"]
    )
    return open_bundle(saved.zip(), Limits(), spec)


@pytest.mark.parametrize("temperature", [0.01, 1.37, 2, 100.0])
def test_a_temperature_is_kept_by_a_round_trip(plain: Bundle, spec: FoundationSpec, temperature: float) -> None:
    bundle = write_bundle(replace(plain.manifest, calibration=Calibration(temperature)), plain.files)
    again = open_bundle(bundle.to_zip(), Limits(), spec)
    assert again.adapter(spec, 64).calibration == again.manifest.calibration == Calibration(temperature)
    assert again.digest == bundle.digest != plain.digest


def test_a_bundle_without_a_calibration_has_no_key_and_so_the_digest_of_before(
    plain: Bundle, spec: FoundationSpec
) -> None:
    assert "calibration" not in plain.manifest.to_json()
    assert open_bundle(plain.to_zip(), Limits(), spec).adapter(spec, 64).calibration is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "calibration: None is not"),
        (1.5, "calibration: 1.5 is not"),
        ({"method": "temperature"}, "calibration: "),
        ({"method": "temperature", "temperature": 1.5, "bins": 15}, "calibration: "),
        ({"method": "platt", "temperature": 1.5}, "calibration: "),
        *[({"method": "temperature", "temperature": t}, "is not a number") for t in (None, True, "1.5", [1.5])],
        *[
            ({"method": "temperature", "temperature": t}, "is not from 0.01 to 100")
            for t in (0, -1, 0.0099, 100.5, 10**12, 10**400)
        ],
    ],
)
def test_what_is_no_temperature_within_bounds_is_refused(plain: Bundle, value: Any, message: str) -> None:
    with pytest.raises(Rejected) as refused:
        read_manifest(json.dumps({**plain.manifest.to_json(), "calibration": value}).encode())
    assert refused.value.check == "schema"
    assert refused.value.where.startswith("bundle.json: calibration")
    assert message in str(refused.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"problem_type": "regression"},
        {"task": "token-classification", "problem_type": None, "head": {"kind": "hf", "class": "X"}},
    ],
)
def test_an_answer_that_is_no_probability_has_no_calibration(plain: Bundle, changes: dict[str, Any]) -> None:
    value = {**plain.manifest.to_json(), **changes}
    value["calibration"] = {"method": "temperature", "temperature": 1.5}
    with pytest.raises(Rejected, match="calibration: unknown key"):
        read_manifest(json.dumps(value).encode())
