"""Write the int8 form of an exported foundation: the trunk's own products in 8 bits, and the rest unchanged.

Each output feature of a weight has a separate step. At run time each token of the states has one too, for the
range from its least number to its largest. A row's answer then does not depend on the other rows of its batch,
except where the last bits of fp32 change a rounding. ONNX Runtime's quantize_dynamic has one step for a whole
batch. There, the other rows move an answer as much as rounding does, and the error is several times as large.
Updates of adapters stay in fp32, and so do embeddings, normalisation, attention and heads.

Sources: Dettmers et al., "LLM.int8(): 8-bit Matrix Multiplication for Transformers at Scale", 2022, for these
vector-wise steps; Jacob et al., "Quantization and Training of Neural Networks", 2018, for zero points.

This module imports onnx and no torch. No module that serves imports it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from rootstock.service.engine.runners.onnx.export.weights import WEIGHTS, share_weights

# Weights are signed and states are not, because ONNX Runtime is fast only for uint8 by int8.
_WEIGHT_STEPS = 127
_STATE_STEPS = 255
# Smaller than any step that matters. It prevents a division by zero.
_LEAST_STEP = np.float32(1e-12)
_DOMAIN = "com.microsoft"


def quantise(source: Path, target: Path) -> None:
    """Write the int8 form of the fp32 export in `source` to the new folder `target`."""
    content = json.loads((source / "foundation.json").read_text(encoding="utf-8"))
    trunks = {f"trunk-{name}.onnx" for name in content["variants"]}
    own = content["spec"]["masked_lm"]
    heads = set() if own is None else {f"head-{own['class_name']}.onnx"}
    target.mkdir(parents=True)
    for name in content["files"].keys() - trunks - heads - {WEIGHTS}:
        shutil.copyfile(source / name, target / name)
    # The foundation's own head stays in fp32. Its constants lie in the weights file together with those of the
    # trunks.
    whole = ((target / name, onnx.load(source / name)) for name in heads)
    share_weights(target, chain(_quantised(source, target, sorted(trunks)), whole))
    files = {path.name: path.stat().st_size for path in sorted(target.iterdir())}
    content = {**content, "precision": "int8", "files": files}
    (target / "foundation.json").write_text(json.dumps(content, indent=1), encoding="utf-8")


def _quantised(source: Path, target: Path, names: Iterable[str]) -> Iterator[tuple[Path, Any]]:
    for name in names:
        model = onnx.load(source / name)
        _Quantised(model.graph).run()
        if all(opset.domain != _DOMAIN for opset in model.opset_import):
            model.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
        yield target / name, model


def _is_product(node: Any) -> bool:
    """Tell whether a node is x @ w, or x @ w + b as torch writes it.

    Variants of a trunk differ in which they use.
    """
    plain = {"alpha": 1.0, "beta": 1.0, "transA": 0}
    attributes = _attributes(node)
    is_plain = all(attributes.get(name, value) == value for name, value in plain.items())
    return node.op_type == "MatMul" or (node.op_type == "Gemm" and is_plain)


def _attributes(node: Any) -> dict[str, Any]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


class _Quantised:
    """One pass over a graph's nodes that turns each product with a constant matrix into an int8 product."""

    def __init__(self, graph: Any) -> None:
        self.graph = graph
        self.constants = {constant.name: constant for constant in graph.initializer}
        self.nodes: list[Any] = []
        self.rounded: set[str] = set()

    def run(self) -> None:
        self._constant("int8.step", np.float32(1 / _STATE_STEPS))
        self._constant("int8.least", _LEAST_STEP)
        self._constant("int8.zero", np.float32(0))
        self._constant("int8.one", np.float32(1))
        self._constant("int8.flat", np.array([-1], np.int64))
        for node in self.graph.node:
            weight = self.constants.get(node.input[1]) if _is_product(node) else None
            if weight is None or len(weight.dims) != 2 or weight.data_type != onnx.TensorProto.FLOAT:
                self.nodes.append(node)
                continue
            bias, out = node.input[2:], node.output[0]
            transposed = bool(_attributes(node).get("transB", 0))
            self._product(node.input[0], weight, transposed, f"{out}.product" if bias else out)
            if bias:
                self._add("Add", [f"{out}.product", *bias], out)
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)
        used = {name for node in self.graph.node for name in node.input}
        for constant in [c for c in self.graph.initializer if c.name not in used]:
            self.graph.initializer.remove(constant)

    def _product(self, states: str, weight: Any, transposed: bool, out: str) -> None:
        """Add the nodes for `out` = states @ weight, (…, in) by (in, out).

        They compute (counts @ weight in steps) * steps + least * sums.
        """
        name = self._round_weight(weight, transposed)
        self._round_states(states)
        factors = [f"{states}.counts", f"{name}.counts", "int8.one", f"{name}.steps"]
        self._add("MatMulIntegerToFloat", factors, f"{out}.in_steps", domain=_DOMAIN)
        self._add("Mul", [f"{out}.in_steps", f"{states}.steps"], f"{out}.above_least")
        self._add("MatMul", [f"{states}.least", f"{name}.sums"], f"{out}.of_least")
        self._add("Add", [f"{out}.above_least", f"{out}.of_least"], out)

    def _round_weight(self, weight: Any, transposed: bool) -> str:
        """Add constants with weight ≈ counts * steps, and return their common name.

        counts is int8 (in, out), steps is fp32 (out,), and sums (1, out) is counts * steps summed over the
        inputs.
        """
        name = f"{weight.name}.T" if transposed else str(weight.name)
        if f"{name}.counts" in self.constants:
            return name
        values = numpy_helper.to_array(weight)
        values = values.T if transposed else values
        steps = np.maximum(np.abs(values).max(axis=0) / _WEIGHT_STEPS, _LEAST_STEP)
        counts = np.rint(values / steps).astype(np.int8)
        self._constant(f"{name}.counts", counts)
        self._constant(f"{name}.steps", steps)
        self._constant(f"{name}.sums", (counts.sum(axis=0, keepdims=True) * steps).astype(np.float32))
        return name

    def _round_states(self, states: str) -> None:
        """Add nodes with states ≈ counts * steps + least. Zero is exact.

        counts is uint8 (…, in), steps and least are fp32 (…, 1).
        """
        if states in self.rounded:
            return
        self.rounded.add(states)
        self._add("ReduceMax", [states], f"{states}.max", axes=[-1], keepdims=1)
        self._add("ReduceMin", [states], f"{states}.min", axes=[-1], keepdims=1)
        self._add("Max", [f"{states}.max", "int8.zero"], f"{states}.top")
        self._add("Min", [f"{states}.min", "int8.zero"], f"{states}.bottom")
        self._add("Sub", [f"{states}.top", f"{states}.bottom"], f"{states}.range")
        self._add("Mul", [f"{states}.range", "int8.step"], f"{states}.step")
        self._add("Add", [f"{states}.step", "int8.least"], f"{states}.steps")
        self._add("Div", [f"{states}.bottom", f"{states}.steps"], f"{states}.below")
        self._add("Round", [f"{states}.below"], f"{states}.below_zero")
        self._add("Mul", [f"{states}.below_zero", f"{states}.steps"], f"{states}.least")
        self._add("Neg", [f"{states}.below_zero"], f"{states}.zeros")
        # QuantizeLinear takes one step and one zero point for each row of a matrix.
        self._add("Cast", [f"{states}.zeros"], f"{states}.zero_counts", to=onnx.TensorProto.UINT8)
        self._add("Reshape", [f"{states}.zero_counts", "int8.flat"], f"{states}.flat_zeros")
        self._add("Reshape", [f"{states}.steps", "int8.flat"], f"{states}.flat_steps")
        self._add("Flatten", [states], f"{states}.flat", axis=-1)
        rows = [f"{states}.flat", f"{states}.flat_steps", f"{states}.flat_zeros"]
        self._add("QuantizeLinear", rows, f"{states}.flat_counts", axis=0)
        self._add("Shape", [states], f"{states}.shape")
        self._add("Reshape", [f"{states}.flat_counts", f"{states}.shape"], f"{states}.counts")

    def _add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> None:
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))

    def _constant(self, name: str, value: Any) -> None:
        self.constants[name] = numpy_helper.from_array(np.asarray(value), name)
        self.graph.initializer.append(self.constants[name])
