"""What a runner's raw outputs may differ by: a number in fp32; with fewer bits also what they come to."""

from __future__ import annotations

import numpy as np
import pytest

from rootstock.adapters.bundle import Golden
from rootstock.adapters.spec import Rejected
from rootstock.service.tolerance import compare, golden_tokens

TEXT, TOKENS, SPAN, VECTOR, GENERATED = (
    "text-classification",
    "token-classification",
    "question-answering",
    "feature-extraction",
    "text-generation",
)


def outputs(*values: object) -> np.ndarray:
    return np.array(values, np.float32)


def test_in_fp32_each_number_has_its_own_tolerance() -> None:
    assert compare(outputs(1.00019, 0), outputs(1, 0), TEXT, "fp32", "x") == pytest.approx(1.9e-4, rel=1e-2)
    with pytest.raises(Rejected, match=r"golden: x\[1\]: .* computes 0\.00019; expected 0 "):
        compare(outputs(1, 0.00019), outputs(1, 0), TEXT, "fp32", "x")


def test_with_fewer_bits_a_number_s_tolerance_follows_the_largest_that_it_is_weighed_against() -> None:
    assert compare(outputs(10, 1.7), outputs(10, 0), TEXT, "int8", "x") == pytest.approx(1.7)
    with pytest.raises(Rejected, match=r"x\[1\]"):
        compare(outputs(1, 0.9), outputs(1, 0), TEXT, "int8", "x")
    tokens = outputs([10, 0], [1, 0])
    assert compare(tokens + outputs([0, 1.7], [0, 0]), tokens, TOKENS, "int8", "x") == pytest.approx(1.7)
    with pytest.raises(Rejected, match=r"x\[1\]\[1\]"):
        compare(tokens + outputs([0, 0], [0, 0.9]), tokens, TOKENS, "int8", "x")


@pytest.mark.parametrize("precision", ["int8", "bf16"])
@pytest.mark.parametrize(("task", "shape"), [(TEXT, (2,)), (TOKENS, (1, 2)), (SPAN, (2, 1))])
def test_with_fewer_bits_the_top_label_holds_unless_it_hardly_leads(
    precision: str, task: str, shape: tuple[int, ...]
) -> None:
    step = {"int8": 0.75, "bf16": 0.05}[precision]
    near, clear = outputs(step, 0.2 * step), outputs(step, -0.2 * step)
    nudge = outputs(-0.6 * step, 0.7 * step)
    compare((near + nudge).reshape(shape), near.reshape(shape), task, precision, "x")
    with pytest.raises(Rejected, match="puts 1 first; expected 0, which leads by"):
        compare((clear + nudge).reshape(shape), clear.reshape(shape), task, precision, "x")


@pytest.mark.parametrize("task", [VECTOR, "image-feature-extraction", "audio-feature-extraction"])
def test_with_fewer_bits_an_embedding_keeps_its_direction(task: str) -> None:
    vector = np.full(384, 384**-0.5, np.float32)
    turned = vector.copy()
    turned[:40] = 0
    assert compare(vector * 1.1, vector, task, "int8", "x") < 0.01
    with pytest.raises(Rejected, match=r"cosine 0\.9\d+ .* at least 0\.98 in int8"):
        compare(turned, vector, task, "int8", "x")


def test_a_regression_has_no_label_to_keep() -> None:
    assert compare(outputs(-0.3), outputs(0.1), TEXT, "int8", "x") == pytest.approx(0.4)


def test_outputs_of_another_shape_are_refused() -> None:
    with pytest.raises(Rejected, match=r"shape \(2,\); expected \(3,\)"):
        compare(outputs(1, 2), outputs(1, 2, 3), TEXT, "int8", "x")


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int4"])
def test_every_token_of_a_text_is_the_expected_one(precision: str) -> None:
    expected = outputs([7, -0.1], [8, -0.7])
    assert compare(expected, expected, GENERATED, precision, "x") == 0
    with pytest.raises(Rejected, match=r"x\[1\]: .* generates token 9; expected 8"):
        compare(outputs([7, -0.1], [9, -0.7]), expected, GENERATED, precision, "x")


@pytest.mark.parametrize(("precision", "near", "far"), [("bf16", 0.15, 0.2), ("int4", 0.6, 0.7)])
def test_with_fewer_bits_the_log_probability_of_an_expected_token_differs_little(
    precision: str, near: float, far: float
) -> None:
    expected = outputs([7, -0.1], [8, -0.7])
    assert compare(outputs([7, -0.1], [8, -0.7 + near]), expected, GENERATED, precision, "x") == pytest.approx(
        near
    )
    with pytest.raises(Rejected, match=r"x\[1\]: the log-probability is"):
        compare(outputs([7, -0.1], [8, -0.7 - far]), expected, GENERATED, precision, "x")


def test_with_fewer_bits_the_expected_tokens_are_forced() -> None:
    golden = Golden(("a", "b"), (outputs([7, -0.1], [8, -0.7]), outputs([5, -2])))
    assert golden_tokens(golden, "fp32") is None
    assert golden_tokens(golden, "int4") == golden_tokens(golden, "bf16") == [[7, 8], [5]]
