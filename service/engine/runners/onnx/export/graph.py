"""Rewrite an exported trunk graph: feed attention directly, and cut the last layer to the tokens heads read."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

_ROWWISE = {"Cast", "Erf", "Gelu", "Identity", "Relu", "Sigmoid", "Sqrt", "Tanh"}
_BROADCAST = {"Add", "Div", "Mul", "Pow", "Sub"}

# A node and the index of one of its inputs.
Use = tuple[Any, int]


def straighten_attention(graph: Any) -> None:
    """Connect each fused attention directly to its projections and to the node that follows it.

    transformers splits the heads, and the operator takes them together. The reshapes and transposes between them
    undo each other, so they can go.
    """
    produced = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        if node.op_type == "MultiHeadAttention":
            for i in range(3):
                node.input[i] = _before_split(produced, node.input[i])
        elif node.op_type == "Reshape" and (inner := produced.get(node.input[0])) is not None:
            source = produced.get(inner.input[0]) if inner.op_type == "Reshape" else None
            if source is not None and source.op_type == "MultiHeadAttention":
                node.op_type = "Identity"
                del node.attribute[:]
                node.input[:] = [source.output[0]]


def _before_split(produced: dict[str, Any], name: str) -> str:
    """Return the tensor that was split and joined again to become `name`, or `name` if there is none."""
    for undone in (("Reshape", "Reshape"), ("Reshape", "Transpose", "Transpose", "Reshape")):
        source = name
        for expected in undone:
            node = produced.get(source)
            if node is None or node.op_type != expected:
                break
            source = str(node.input[0])
        else:
            return source
    return name


def drop_unused(graph: Any) -> None:
    """Remove the nodes and constants that no output depends on."""
    needed = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    for constant in [c for c in graph.initializer if c.name not in needed]:
        graph.initializer.remove(constant)


def keep_first_tokens(graph: Any, hidden: str, kept: str) -> None:
    """Compute `hidden` (rows, tokens, width) only for its first tokens.

    Their count is a new int64 input `kept`, (1,).

    The cut moves from the output towards the inputs through every node that does not mix tokens, and through
    attention to its queries. With one token kept, the last layer computes its feed-forward part, its output
    projection and its queries for only one token of each row. If another output needs more of `hidden` than the
    first token, such as a mean over tokens, only `hidden` itself is cut.
    """
    _Cut(graph, kept).run(hidden)


class _Cut:
    """One pass over the nodes, from last to first.

    A node is cut if every user of its output asks for the same cut.
    """

    def __init__(self, graph: Any, kept: str) -> None:
        self.graph = graph
        self.kept = kept
        self.uses: dict[str, list[Use]] = defaultdict(list)
        for node in graph.node:
            for i, name in enumerate(node.input):
                self.uses[name].append((node, i))
        self.fixed = {c.name for c in graph.initializer} | {i.name for i in graph.input}
        self.fixed |= {n.output[0] for n in graph.node if n.op_type == "Constant"}
        self.values = {c.name: numpy_helper.to_array(c).tolist() for c in graph.initializer if not c.dims}
        for node in graph.node:
            if node.op_type == "Constant" and (value := _value(node)) is not None and not value.shape:
                self.values[node.output[0]] = value.tolist()
        self.cuts: dict[tuple[str, int], list[Use]] = defaultdict(list)
        self.nodes: list[Any] = []
        self.axes: set[int] = set()

    def run(self, hidden: str) -> None:
        place, producer = next((i, n) for i, n in enumerate(self.graph.node) if hidden in n.output)
        first = [use for use in self.uses[hidden] if self._takes_first_token(use[0])]
        others = [use for use in self.uses[hidden] if not self._takes_first_token(use[0])]
        if others or _places(producer, 1) is None:
            # An output cannot be cut in place if its producer mixes tokens or reshapes, or if other nodes need
            # all of it. Insert a node after it.
            producer.output[list(producer.output).index(hidden)] = whole = f"{hidden}.whole"
            between = onnx.helper.make_node("Identity", [whole], [hidden])
            self.graph.node.insert(place + 1, between)
            self.uses[whole] = [*others, (self.graph.node[place + 1], 0)]
            for node, i in others:
                node.input[i] = whole
            self.uses[hidden] = first
        self.cuts[hidden, 1] = first
        outputs = {output.name for output in self.graph.output}
        for node in reversed(self.graph.node):
            self._visit(node, outputs - {hidden})
            self.nodes.append(node)
        del self.graph.node[:]
        self.graph.node.extend(reversed(self.nodes))
        self._constant("kept.start", 0)
        for axis in sorted(self.axes):
            self._constant(f"kept.axis{axis}", axis)
        self.graph.input.append(onnx.helper.make_tensor_value_info(self.kept, onnx.TensorProto.INT64, [1]))

    def _takes_first_token(self, node: Any) -> bool:
        """Tell whether a node selects the first token."""
        along_tokens = any(a.name == "axis" and a.i == 1 for a in node.attribute)
        return node.op_type == "Gather" and along_tokens and self.values.get(node.input[1]) == 0

    def _visit(self, node: Any, outputs: set[str]) -> None:
        for axis in (1, 2):
            cuts = {name: self.cuts.pop((name, axis)) for name in node.output if (name, axis) in self.cuts}
            if not cuts:
                continue
            whole = len(cuts) == len(node.output) and not outputs.intersection(cuts)
            whole = whole and all(len(uses) == len(self.uses[name]) for name, uses in cuts.items())
            places = _places(node, axis) if whole else None
            if places is None:
                for name, uses in cuts.items():
                    self._slice(name, axis, uses)
                continue
            for i, along in places:
                if i < len(node.input) and node.input[i] and node.input[i] not in self.fixed:
                    self.cuts[node.input[i], along].append((node, i))

    def _slice(self, name: str, axis: int, uses: list[Use]) -> None:
        cut = f"{name}.kept{axis}"
        self.axes.add(axis)
        # Append it before its producer, because the nodes are collected from last to first.
        self.nodes.append(
            onnx.helper.make_node("Slice", [name, "kept.start", self.kept, f"kept.axis{axis}"], [cut])
        )
        for node, i in uses:
            node.input[i] = cut

    def _constant(self, name: str, value: int) -> None:
        self.graph.initializer.append(numpy_helper.from_array(np.array([value], np.int64), name))


def _value(constant: Any) -> Any:
    """Return the array of a constant node, or None if it holds something else."""
    return next((numpy_helper.to_array(a.t) for a in constant.attribute if a.name == "value"), None)


def _places(node: Any, axis: int) -> list[tuple[int, int]] | None:
    """Return the inputs to cut, with their axes, for a cut of the node's output along `axis`.

    Return None if the node cannot be cut.
    """
    if node.op_type in _ROWWISE:
        return [(0, axis)]
    if node.op_type in _BROADCAST:
        return [(0, axis), (1, axis)]
    if axis != 1:
        return None
    if node.op_type in ("LayerNormalization", "MatMul"):
        return [(0, 1)]
    if node.op_type == "Split" and any(a.name == "axis" and a.i not in (0, 1) for a in node.attribute):
        return [(0, 1)]
    if node.op_type == "Gather" and all(a.i == 0 for a in node.attribute if a.name == "axis"):
        return [(0, 1)]
    if node.op_type == "MultiHeadAttention":
        return [(0, 1), (5, 2)]
    return None
