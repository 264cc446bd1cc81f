"""The calibration in `bundle.json`: how an adapter's logits become probabilities that match its accuracy."""

from __future__ import annotations

from typing import Any

from rootstock.adapters.spec import CLASSIFICATION, Calibration, Rejected

CALIBRATION = "calibration"
COLDEST, HOTTEST = 0.01, 100.0
_METHOD = "temperature"


def may_be_calibrated(task: Any, problem_type: Any) -> bool:
    """Tell whether a bundle of this task may hold a calibration: its answers must be probabilities of labels."""
    return task in CLASSIFICATION.values() and problem_type != "regression"


def calibration_json(calibration: Calibration | None) -> dict[str, Any]:
    """Return the part of `bundle.json`. A bundle without a calibration has no key for it."""
    if calibration is None:
        return {}
    return {CALIBRATION: {"method": _METHOD, "temperature": calibration.temperature}}


def read_calibration(value: Any) -> Calibration:
    """Return the calibration in the value of its key. Raise Rejected (check "schema") for another value."""
    if not isinstance(value, dict) or set(value) != {"method", "temperature"} or value["method"] != _METHOD:
        raise _wrong("", f'{value!r} is not {{"method": "{_METHOD}", "temperature": NUMBER}}')
    temperature = value["temperature"]
    if not isinstance(temperature, int | float) or isinstance(temperature, bool):
        raise _wrong(".temperature", f"{temperature!r} is not a number")
    # The comparison is exact for an integer of any size, and false for NaN.
    if not COLDEST <= temperature <= HOTTEST:
        raise _wrong(".temperature", f"{temperature!r} is not from {COLDEST:g} to {HOTTEST:g}")
    return Calibration(float(temperature))


def _wrong(key: str, message: str) -> Rejected:
    return Rejected("schema", f"bundle.json: {CALIBRATION}{key}", message)
