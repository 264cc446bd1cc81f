"""`rootstock foundation check` refuses a precision under which an adapter's golden texts change too much."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer
from typer.testing import CliRunner

from rootstock.adapters.bundle import Bundle, Limits, open_bundle, write_bundle
from rootstock.adapters.bundle.archive import GOLDEN
from rootstock.adapters.bundle.golden import Golden
from rootstock.adapters.home.home import Home
from rootstock.service.cli.foundation import foundation
from tests.peft_adapters import PeftAdapter, peft_model
from tests.service.engine.generate.families import TinyDecoder, make_adapters, make_decoder

PROMPTS = ("Where is my parcel?", "Hello")

Check = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyDecoder:
    folder = tmp_path_factory.mktemp("llama") / "tiny-chat"
    return make_decoder("llama", folder, hidden_size=64, intermediate_size=96)


@pytest.fixture(scope="module")
def saved(tiny: TinyDecoder, tmp_path_factory: pytest.TempPathFactory) -> list[PeftAdapter]:
    return make_adapters(tiny, tmp_path_factory.mktemp("adapters"))


@pytest.fixture
def check(tiny: TinyDecoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Run the command on the home in `tmp_path`: its exit code, output and errors."""
    monkeypatch.setenv("ROOTSTOCK_HOME", str(tmp_path))

    def run(*arguments: str) -> tuple[int, str, str]:
        done = CliRunner().invoke(foundation, ["check", "--foundation", str(tiny.folder), *arguments])
        return done.exit_code, done.stdout, done.stderr

    return run


def _with_golden(tiny: TinyDecoder, saved: PeftAdapter, shift: float = 0.0) -> Bundle:
    """Return a bundle with PEFT's greedy tokens, and with log-probabilities that are too high by `shift`."""
    outputs = []
    for prompt in PROMPTS:
        ids = AutoTokenizer.from_pretrained(tiny.folder).encode(prompt)
        tokens = tiny.greedy(saved, ids, 4)
        with torch.no_grad():
            logits = peft_model(tiny.folder, saved)(input_ids=torch.tensor([ids + tokens])).logits[0]
        scores = logits.log_softmax(-1)[len(ids) - 1 : -1]
        rows = [[token, float(scores[i, token]) + shift] for i, token in enumerate(tokens)]
        outputs.append(np.asarray(rows, np.float32))
    plain = open_bundle(saved.zip(), Limits(), tiny.spec)
    return write_bundle(plain.manifest, {**plain.files, GOLDEN: Golden(PROMPTS, tuple(outputs)).to_bytes()})


def _publish(home: Path, tiny: TinyDecoder, name: str, bundle: Bundle) -> None:
    Home(home).open_store().put(bundle.digest, bundle.to_zip())
    registry = Home(home).open_registry()
    fields = {"task": "text-generation", "verification": {}, "size": 1, "activate": True}
    registry.publish(name, bundle.digest, **fields, foundation=tiny.spec.fingerprint)
    registry.close()


def test_adapters_whose_golden_texts_hold_pass(
    check: Check, tiny: TinyDecoder, saved: list[PeftAdapter], tmp_path: Path
) -> None:
    _publish(tmp_path, tiny, "kept", _with_golden(tiny, saved[0]))
    _publish(tmp_path, tiny, "plain", open_bundle(saved[1].zip(), Limits(), tiny.spec))
    code, output, errors = check("--precision", "bf16", "--json")
    assert code == 0, errors
    (row,) = json.loads(output)["adapters"]
    assert (row["adapter"], row["inputs"], row["tokens"], row["refusal"]) == ("kept@1", 2, 8, None)
    assert 0 < row["max_difference"] < 0.3
    assert json.loads(output)["not_checked"] == {"plain@1": "no golden set"}


@pytest.mark.parametrize("precision", ["bf16", "int4"])
def test_an_adapter_whose_golden_texts_change_too_much_is_named_with_exit_code_1(
    check: Check, tiny: TinyDecoder, saved: list[PeftAdapter], tmp_path: Path, precision: str
) -> None:
    _publish(tmp_path, tiny, "changed", _with_golden(tiny, saved[0], shift=9.0))
    code, output, errors = check("--precision", precision)
    assert code == 1
    assert "refused" in output
    assert f"{precision} changes too much: changed@1: " in errors
    assert "serve fp32" in errors


@pytest.mark.parametrize("precision", ["bf16", "int4"])
def test_the_golden_texts_of_another_adapter_do_not_pass(
    check: Check, tiny: TinyDecoder, saved: list[PeftAdapter], tmp_path: Path, precision: str
) -> None:
    right, wrong = (_with_golden(tiny, saved[i]) for i in (0, 3))
    files = {**right.files, GOLDEN: wrong.files[GOLDEN]}
    _publish(tmp_path, tiny, "mixed-up", write_bundle(right.manifest, files))
    code, _, errors = check("--precision", precision)
    assert code == 1, errors
    assert "mixed-up@1" in errors


def test_an_empty_home_has_nothing_to_refuse(check: Check) -> None:
    code, output, _ = check("--precision", "int4", "--json")
    assert code == 0
    assert json.loads(output)["adapters"] == []


def test_a_foundation_that_generates_no_text_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ROOTSTOCK_HOME", str(tmp_path))
    done = CliRunner().invoke(foundation, ["check", "--foundation", "default", "--precision", "int4"])
    assert done.exit_code == 2
    assert "generates no text; name a foundation that does, such as chat" in done.stderr
