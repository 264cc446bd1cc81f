"""Additions of a trunk graph folded into the operators that follow them: each spares a pass over the activations.

ONNX Runtime finds these by pattern, and not where a site's update stands between a product and its bias.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from service.engine.runners.onnx_attention import DOMAIN


def fold_additions(model: Any) -> None:
    """Give attention its projections' biases, and each normalisation the residual and the bias before it."""
    graph = _Graph(model.graph)
    for node in list(model.graph.node):
        if node.op_type == "MultiHeadAttention":
            graph.bias_into_attention(node)
        elif node.op_type == "LayerNormalization":
            graph.sum_into_norm(node)
    if all(opset.domain != DOMAIN for opset in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))


class _Graph:
    """A graph with who produces each tensor, and how often it is used."""

    def __init__(self, graph: Any) -> None:
        self.graph = graph
        self.produced = {output: node for node in graph.node for output in node.output}
        self.uses = Counter(name for node in graph.node for name in node.input)
        self.uses.update(output.name for output in graph.output)
        self.constants = {c.name: c for c in graph.initializer}

    def bias_into_attention(self, node: Any) -> None:
        taken = [self._without_bias(node.input[i]) for i in range(3)]
        if all(bias is None for _, bias in taken):
            return
        found = [numpy_helper.to_array(self.constants[bias]) for _, bias in taken if bias is not None]
        # Queries, keys and values are of one width in every encoder that is exported with this operator.
        none = np.zeros_like(found[0])
        whole = [none if b is None else numpy_helper.to_array(self.constants[b]) for _, b in taken]
        node.input[:3] = [name for name, _ in taken]
        node.input[3] = f"{node.output[0]}.bias"
        self.graph.initializer.append(numpy_helper.from_array(np.concatenate(whole), node.input[3]))

    def sum_into_norm(self, node: Any) -> None:
        total = self.produced.get(node.input[0])
        if total is None or total.op_type != "Add" or self.uses[total.output[0]] != 1:
            return
        if any(name in self.constants for name in total.input) or len(node.input) < 3:
            return
        sides = list(total.input)
        bias = None
        for i in (0, 1):
            sides[i], bias = self._without_bias(sides[i])
            if bias is not None:
                break
        epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
        node.op_type, node.domain = "SkipLayerNormalization", DOMAIN
        node.input[:] = [*sides, node.input[1], node.input[2], *([] if bias is None else [bias])]
        del node.attribute[:]
        node.attribute.append(onnx.helper.make_attribute("epsilon", epsilon))
        self.graph.node.remove(total)

    def _without_bias(self, name: str) -> tuple[str, str | None]:
        """The tensor without the one constant vector that is added to it, and that vector, where there is one."""
        node = self.produced.get(name)
        if node is None or node.op_type != "Add" or self.uses[name] != 1:
            return name, None
        for i in (0, 1):
            constant = self.constants.get(node.input[i])
            if constant is not None and len(constant.dims) == 1:
                self.graph.node.remove(node)
                return str(node.input[1 - i]), str(node.input[i])
        for i in (0, 1):
            inner, bias = self._without_bias(node.input[i])
            if bias is not None:
                node.input[i] = inner
                return name, bias
        return name, None
