"""Open an exported foundation's graphs when they are first needed, without importing torch."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# ONNX Runtime's builds for Linux send usage data to their maker unless this is set before the import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort

from rootstock.adapters.spec import AdapterWeights, FoundationSpec

# The folder in an export that holds the export of the foundation's tower for texts.
TEXT_FOLDER = "text"


@dataclass(frozen=True)
class OnnxTrunk:
    """A trunk graph's name and the updates that it takes; see export.trunk.Variant."""

    name: str
    sites: frozenset[str]
    full: bool
    mapped: bool


@dataclass(frozen=True)
class Head:
    """A head graph with the names of its inputs.

    `first_token` tells whether it reads only the first token's state.
    """

    session: ort.InferenceSession
    inputs: tuple[str, ...]
    first_token: bool


class Sessions:
    """The graphs of the export in a folder. Any thread may call it, and each graph is opened only once."""

    def __init__(self, folder: Path, threads: int) -> None:
        content = json.loads((folder / "foundation.json").read_text(encoding="utf-8"))
        self.spec = FoundationSpec.from_json(content["spec"])
        self.precision: str = content["precision"]
        self.trunks = tuple(
            OnnxTrunk(name, frozenset(v["sites"]), v["full"], v["mapped"])
            for name, v in content["variants"].items()
        )
        # Whether the hidden states are a sequence of tokens, which `kept` cuts, and not a grid.
        self.sequence: bool = content["sequence"]
        self._first_token: dict[str, bool] = content["heads"]
        self._folder = folder
        self._threads = threads
        self._opened: dict[str, ort.InferenceSession] = {}
        self._inputs: dict[str, frozenset[str]] = {}
        self._heads: dict[str, Head] = {}
        self._opening = threading.Lock()

    def trunk_for(self, weights: AdapterWeights) -> OnnxTrunk:
        """Return the cheapest trunk graph that takes an adapter's updates."""
        low_rank = weights.words is None and all(update.is_low_rank for update in weights.sites.values())
        fitting = (t for t in self.trunks if weights.sites.keys() <= t.sites and not t.mapped and not t.full)
        cheapest = next(fitting, None) if low_rank else None
        return cheapest or self.trunks[-1]

    def mapped(self, trunk: OnnxTrunk) -> OnnxTrunk | None:
        """Return a trunk graph that shares states between rows and takes the updates of `trunk`, if any."""
        return next(
            (t for t in self.trunks if t.mapped and t.full >= trunk.full and t.sites >= trunk.sites), None
        )

    def trunk(self, name: str) -> ort.InferenceSession:
        """Return the session of the trunk graph with this name."""
        return self._session(f"trunk-{name}.onnx", self._threads)

    def inputs(self, name: str) -> frozenset[str]:
        """Return the inputs of the trunk graph with this name. An export drops those that change no output."""
        if name not in self._inputs:
            self._inputs[name] = frozenset(
                i.name for i in self._session(f"trunk-{name}.onnx", self._threads).get_inputs()
            )
        return self._inputs[name]

    def head(self, class_name: str) -> Head:
        """Return the head graph of a task class."""
        if class_name not in self._heads:
            # Use one thread, because a head is a small product and a separate pool would compete with the
            # trunk's.
            session = self._session(f"head-{class_name}.onnx", 1)
            inputs = tuple(i.name for i in session.get_inputs())
            self._heads[class_name] = Head(session, inputs, self._first_token[class_name])
        return self._heads[class_name]

    def _session(self, file: str, threads: int) -> ort.InferenceSession:
        if file not in self._opened:
            with self._opening:
                if file not in self._opened:
                    path = str(self._folder / file)
                    self._opened[file] = ort.InferenceSession(
                        path, _options(threads), providers=["CPUExecutionProvider"]
                    )
        return self._opened[file]


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    _share_arena()
    options.add_session_config_entry("session.use_env_allocators", "1")
    return options


@cache
def _share_arena() -> None:
    """Share one arena between all sessions' activations.

    The sessions run in turn, and with separate arenas each would keep its largest.
    """
    info = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(info, None)
