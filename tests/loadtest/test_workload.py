"""The adapters are what PEFT would save, distinct, the same each time; sentences are of exact length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rootstock.adapters.spec import FoundationSpec
from rootstock.loadtest.fixtures.workload import HEAD_ONLY, LABELS, RANK, make_workload, top_third
from rootstock.loadtest.measure.agreement import Disagreement, require_distinct, require_equal
from rootstock.service.engine.encode.modalities.text import Tokenizer


@pytest.mark.parametrize("tokens", [16, 32])
def test_adapters_are_distinct_and_sentences_as_long_as_asked(
    spec: FoundationSpec, export_folder: Path, tokens: int
) -> None:
    tokenizer = Tokenizer(export_folder / "tokenizer.json")
    workload = make_workload(spec, tokenizer, 5, tokens)
    adapters = workload.adapters(spec)
    assert len({a.digest for a in adapters}) == len(set(workload.sentences)) == 5
    assert {len(e.ids) for e in workload.encoded(tokenizer, spec)} == {tokens}
    for adapter in adapters:
        assert len(adapter.weights.sites) == 2 * spec.layers
        assert {pair.rank for pair in adapter.weights.sites.values()} == {RANK}
        assert len(adapter.labels) == LABELS
    assert make_workload(spec, tokenizer, 5, tokens) == workload


def test_kinds_differ_in_what_they_change(spec: FoundationSpec, export_folder: Path) -> None:
    tokenizer = Tokenizer(export_folder / "tokenizer.json")
    heads = make_workload(spec, tokenizer, 3, 8, HEAD_ONLY).adapters(spec)
    assert [len(adapter.labels) for adapter in heads] == [2, 3, 4]
    assert {spec.depth(adapter.weights.sites) for adapter in heads} == {spec.layers + 1}
    for adapter in make_workload(spec, tokenizer, 2, 8, top_third(spec)).adapters(spec):
        assert sorted(adapter.weights.sites) == [
            f"encoder.layer.{layer}.attention.self.{name}" for layer in (4, 5) for name in ("query", "value")
        ]


def test_wrong_answers_stop_a_benchmark() -> None:
    right = [np.array([1.0, 2.0], np.float32)]
    assert require_equal(right, [right[0] + 5e-5], "x") == pytest.approx(5e-5, rel=0.01)
    for wrong in ([right[0] + 1e-3], [right[0][:1]], [], [right[0] * np.nan]):
        with pytest.raises(Disagreement, match="x: "):
            require_equal(right, wrong, "x")
    require_distinct(right, [right[0] + 1], "x")
    with pytest.raises(Disagreement, match="same answer"):
        require_distinct(right, right, "x")
