"""The trunk in int8: close to fp32, and still each row for itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from rootstock.adapters.bundle import Limits, open_bundle
from rootstock.adapters.spec import FoundationSpec, Preprocessing
from rootstock.service.composition.demo_adapters import DEMO
from rootstock.service.engine.encode.modalities.text import TextSample, Tokenizer, pad
from rootstock.service.engine.runners.onnx.export.int8 import quantise
from rootstock.service.engine.runners.onnx.runner import OnnxRunner
from tests.service.engine.test_onnx_runner import TEXTS, everything

WIDTH, FEATURES = 48, 40
BIAS = np.linspace(-1, 1, FEATURES, dtype=np.float32)


def weight(seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal((WIDTH, FEATURES)).astype(np.float32)
    values[:, 3] = 0
    values[:, 5] *= 100
    return values


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> ort.InferenceSession:
    """The int8 form of a graph of x @ weight(0), x @ weight(1), x @ y, and weight(0) + bias in torch's form."""
    names = ["w0", "w1", "y"]
    graph = helper.make_graph(
        [
            *(helper.make_node("MatMul", ["x", name], [f"of.{name}"]) for name in names),
            helper.make_node("Gemm", ["flat", "w0.T", "bias"], ["biased"], transB=1),
        ],
        "trunk",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", "tokens", WIDTH]),
            helper.make_tensor_value_info("flat", TensorProto.FLOAT, ["rows", WIDTH]),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [WIDTH, 2]),
        ],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ["of.w0", "of.w1", "biased", "of.y"]],
        [
            numpy_helper.from_array(weight(0), "w0"),
            numpy_helper.from_array(weight(1), "w1"),
            numpy_helper.from_array(weight(0).T.copy(), "w0.T"),
            numpy_helper.from_array(BIAS, "bias"),
        ],
    )
    source = tmp_path_factory.mktemp("fp32")
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), source / "trunk-only.onnx")
    content = {
        "variants": {"only": {}},
        "precision": "fp32",
        "files": {"trunk-only.onnx": 0},
        "spec": {"masked_lm": None},
    }
    (source / "foundation.json").write_text(json.dumps(content))
    quantise(source, source / "int8")
    return ort.InferenceSession(source / "int8" / "trunk-only.onnx", providers=["CPUExecutionProvider"])


STATES = {
    "both sides of zero": lambda x: x,
    "all above zero": lambda x: np.abs(x) + 5,
    "all below zero": lambda x: -np.abs(x) - 5,
    "one outlier": lambda x: np.where(np.arange(WIDTH) == 7, 30.0, x),
    "tokens of very different size": lambda x: x * np.logspace(-4, 4, x.shape[1])[:, None],
    "a token of zeros": lambda x: np.where(np.arange(x.shape[1])[:, None] == 1, 0.0, x),
}


@pytest.mark.parametrize("states", STATES.values(), ids=STATES)
def test_a_product_errs_by_no_more_than_a_step_of_each_factor(
    product: ort.InferenceSession, states: Callable[[np.ndarray], np.ndarray]
) -> None:
    x = np.asarray(states(np.random.default_rng(0).standard_normal((2, 5, WIDTH))), np.float32)
    y = weight(2)[:, :2]
    of_0, of_1, biased, plain = product.run(None, {"x": x, "flat": x.reshape(-1, WIDTH), "y": y})
    step = (np.maximum(x.max(-1), 0) - np.minimum(x.min(-1), 0))[..., None] / 255
    for output, seed, bias in ((of_0, 0, 0), (of_1, 1, 0), (biased, 0, BIAS)):
        w = weight(seed).astype(np.float64)
        of_states = step * np.abs(w).sum(0)
        of_weight = (np.abs(x) + step).sum(-1, keepdims=True) * np.abs(w).max(0) / 127
        most = of_states + of_weight + 1e-5 * np.abs(x).max(-1, keepdims=True) + 1e-6
        assert (np.abs(output.reshape(most.shape) - (x @ w + bias)) <= most).all()
    np.testing.assert_allclose(plain, x @ y, rtol=1e-5, atol=1e-5 * np.abs(x).max())


@pytest.fixture(scope="module")
def encoded(export_folder: Path) -> list[TextSample]:
    tokenizer = Tokenizer(export_folder / "tokenizer.json")
    return [tokenizer.encode(text, Preprocessing(256), truncate=False) for text in TEXTS]


def test_a_row_s_answer_in_int8_is_its_own_whatever_shares_its_batch(
    int8_folder: Path, export_folder: Path, spec: FoundationSpec, encoded: list[TextSample]
) -> None:
    adapters = everything(spec)
    rows = [(slot, text) for slot in range(len(adapters)) for text in range(len(encoded))]

    def answers(runner: OnnxRunner, rows: list[tuple[int, int]]) -> list[np.ndarray]:
        return runner.run(pad([encoded[text] for _, text in rows], [slot for slot, _ in rows], 0))

    runners = [OnnxRunner(folder, len(adapters), threads=1) for folder in (export_folder, int8_folder)]
    for runner in runners:
        for slot, adapter in enumerate(adapters):
            runner.place(slot, runner.stage(adapter))
    exact, alone = [[answers(runner, [row])[0] for row in rows] for runner in runners]
    for start in range(0, len(rows), len(encoded)):
        one_adapter = slice(start, start + len(encoded))
        for output, wanted in zip(answers(runners[1], rows[one_adapter]), alone[one_adapter], strict=True):
            np.testing.assert_allclose(output, wanted, rtol=1e-4, atol=1e-4)
    # Another graph computes them all together, whose last bits may tip a rounding.
    mixed = answers(runners[1], rows)
    moved = np.mean([np.abs(a - b).mean() for a, b in zip(mixed, alone, strict=True)])
    assert moved < 0.1 * np.mean([np.abs(a - b).mean() for a, b in zip(alone, exact, strict=True)])


def test_adapters_trained_in_fp32_give_the_trainer_s_outputs_but_for_a_twentieth(
    int8_folder: Path, spec: FoundationSpec
) -> None:
    runner = OnnxRunner(int8_folder, slots=1, threads=1)
    tokenizer = Tokenizer(int8_folder / "tokenizer.json")
    for path in sorted(DEMO.glob("*.zip")):
        bundle = open_bundle(path.read_bytes(), Limits(), spec)
        adapter, golden = bundle.adapter(spec, 64), bundle.golden()
        assert golden is not None
        runner.place(0, runner.stage(adapter))
        rows = [tokenizer.encode(value, adapter.preprocessing, truncate=True) for value in golden.inputs]
        # Of all rows together: a text between two labels has logits near zero, of which a twentieth is nothing.
        output = np.concatenate([np.ravel(row) for row in runner.run(pad(rows, [0] * len(rows), 0))])
        expected = np.concatenate([np.ravel(row) for row in golden.outputs])
        assert 0 < np.linalg.norm(output - expected) < 0.05 * np.linalg.norm(expected)


def test_what_adapters_add_stays_in_fp32(int8_folder: Path, spec: FoundationSpec) -> None:
    model = onnx.load(int8_folder / "trunk-all.onnx", load_external_data=False)
    products = [node for node in model.graph.node if node.op_type == "MatMulIntegerToFloat"]
    assert len(products) == len(spec.sites)
    constants = {constant.name for constant in model.graph.initializer}
    assert all(node.input[1] in constants for node in products)
    assert OnnxRunner(int8_folder, slots=1, threads=1).precision == "int8"
