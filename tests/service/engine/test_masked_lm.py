"""A foundation's own head reads the mask tokens alone and gives transformers' logits, in any company."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
import transformers
from transformers import AutoConfig, AutoModelForMaskedLM

from rootstock.adapters.spec import Adapter, AdapterWeights, HeadSpec, Preprocessing
from rootstock.service.engine.core.catalog import own_adapters
from rootstock.service.engine.encode.batch import Encoder
from rootstock.service.engine.encode.modalities.text import Tokenizer, pad
from rootstock.service.engine.runners.modules import MaskedLMHead
from rootstock.service.engine.runners.onnx.export.export import export
from rootstock.service.engine.runners.onnx.export.heads import export_masked_lm
from rootstock.service.engine.runners.onnx.export.int8 import quantise
from rootstock.service.engine.runners.onnx.runner import OnnxRunner
from rootstock.service.engine.runners.torch.runner import TorchRunner
from tests.masked_lm import make_filling
from tests.parity.foundations import Tiny
from tests.peft_adapters import close

TEXTS = (
    "Where is my [MASK]? It was due on Monday.",
    "[MASK]",
    "The [MASK] sound dull, and the left ear cup [MASK] within a week of careful [MASK].",
    "Ada met [MASK] Babbage in London.",
)
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return make_filling(tmp_path_factory.mktemp("filling") / "model")


@pytest.fixture(scope="module")
def exported(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "export"
    export(tiny.folder, tiny.spec, folder)
    return folder


@pytest.fixture(scope="module")
def expected(tiny: Tiny) -> list[np.ndarray]:
    """The logits at the masks of each text alone."""
    model = AutoModelForMaskedLM.from_pretrained(tiny.folder, attn_implementation="eager").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny.folder)
    at_masks = []
    for text in TEXTS:
        feeds = tokenizer(text, return_tensors="pt")
        with torch.inference_mode():
            logits = model(**feeds).logits[0]
        at_masks.append(logits[feeds["input_ids"][0] == tokenizer.mask_token_id].numpy())
    return at_masks


@pytest.fixture(scope="module", params=["onnx", "onnx, cached", "torch", "torch, rounded"])
def runner(request: pytest.FixtureRequest, tiny: Tiny, exported: Path) -> Iterator[Encoder]:
    if request.param.startswith("onnx"):
        yield filled(OnnxRunner(exported, 8, 1, 2**24 if "cached" in request.param else 0), tiny)
    else:
        graphs = 6 if "rounded" in request.param else 0
        yield filled(TorchRunner(tiny.folder, tiny.spec, 8, device="cpu", graphs=graphs), tiny)


def filled(runner: Any, tiny: Tiny) -> Any:
    """Slots: 0 embeds, 1 fills masks, 2 classifies by the first token, 3 labels tokens."""
    adapters = [*own_adapters(tiny.spec).values(), classifier(tiny, 2), classifier(tiny, 3)]
    for slot, adapter in enumerate(adapters):
        runner.warm(adapter)
        runner.place(slot, runner.stage(adapter))
    return runner


def classifier(tiny: Tiny, labels: int) -> Adapter:
    name = "BertForSequenceClassification" if labels == 2 else "BertForTokenClassification"
    head = tiny.spec.classes[name].head
    weights = {n: np.ones([labels if d is None else d for d in shape], np.float32) for n, shape in head.items()}
    return Adapter(
        f"sha256:{labels}",
        "any",
        None,
        tuple("abc"[:labels]),
        HeadSpec("hf", name),
        Preprocessing(64),
        AdapterWeights({}, weights),
    )


def run(runner: Encoder, tiny: Tiny, rows: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    """One batch of rows, each a slot and a text."""
    tokenizer = Tokenizer(tiny.folder / "tokenizer.json")
    encoded = [tokenizer.encode(TEXTS[text], Preprocessing(64), truncate=False) for _, text in rows]
    return list(runner.run(pad(encoded, [slot for slot, _ in rows], tokenizer.pad_id)))


def test_the_logits_at_the_masks_are_transformers_alone_and_in_any_company(
    runner: Encoder, tiny: Tiny, expected: list[np.ndarray]
) -> None:
    batches = [
        [(1, 0)],
        [(2, 0)],
        [(1, 0)],
        [(1, 2), (1, 0), (1, 1), (1, 3)],
        [(slot, text) for text in (3, 0, 2, 1) for slot in (2, 1, 0, 3)],
        [(1, 1), (1, 1), (0, 1), (1, 2), (2, 2), (1, 2)],
        [(2, text) for text in range(4)],
        [(1, text) for text in (2, 3, 1, 0)],
    ]
    for batch in 2 * batches:
        for (slot, text), output in zip(batch, run(runner, tiny, batch), strict=True):
            if slot == 1:
                assert output.shape == expected[text].shape
                assert close(output, expected[text]), (batch, text)


def test_logits_are_computed_at_masks_and_nowhere_else(
    exported: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = filled(OnnxRunner(exported, 8, 1), tiny)
    head = runner._sessions.head("BertForMaskedLM")
    seen = []

    class Watched:
        def run(self, names: Any, feeds: dict[str, np.ndarray]) -> Any:
            seen.append(feeds["hidden"].shape)
            return head.session.run(names, feeds)

    monkeypatch.setitem(runner._sessions._heads, "BertForMaskedLM", replace(head, session=Watched()))
    run(runner, tiny, [(1, 0), (1, 2), (1, 0), (0, 3)])
    assert seen == [(1 + 3, 32)]


def test_the_head_s_graph_is_opened_when_a_mask_is_first_filled(exported: Path, tiny: Tiny) -> None:
    runner = OnnxRunner(exported, 8, 1)
    embed, fill = own_adapters(tiny.spec).values()
    runner.stage(embed)
    assert not [file for file in runner._sessions._opened if file.startswith("head-")]
    runner.warm(fill)
    assert "head-BertForMaskedLM.onnx" in runner._sessions._opened


def test_the_tied_decoder_is_kept_once_on_disk(exported: Path) -> None:
    table = 30522 * 32 * 4
    assert table < (exported / "weights.bin").stat().st_size < 2 * table
    assert (exported / "head-BertForMaskedLM.onnx").stat().st_size < 2**16


def test_the_int8_form_has_the_head_in_fp32(
    exported: Path, tiny: Tiny, expected: list[np.ndarray], tmp_path: Path
) -> None:
    quantise(exported, tmp_path / "int8")
    shutil.copytree(tmp_path / "int8", tmp_path / "moved")
    hidden = np.random.default_rng(0).normal(size=(3, 32)).astype(np.float32)
    heads = [
        ort.InferenceSession(folder / "head-BertForMaskedLM.onnx") for folder in (exported, tmp_path / "moved")
    ]
    fp32, int8 = (head.run(None, {"hidden": hidden})[0] for head in heads)
    assert np.array_equal(fp32, int8)
    runner = filled(OnnxRunner(tmp_path / "moved", 8, 1), tiny)
    (output,) = run(runner, tiny, [(1, 2)])
    assert output.shape == expected[2].shape
    assert np.abs(output - expected[2]).max() < 0.2 * np.abs(expected[2]).max()


@pytest.mark.parametrize(
    ("architecture", "options"),
    [("deberta-v2", {"legacy": False}), ("bert", {"tie_word_embeddings": False}), ("modernbert", {})],
    ids=str,
)
def test_heads_of_other_forms_give_transformers_logits(
    architecture: str, options: dict[str, Any], tmp_path: Path
) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = AutoConfig.for_model(architecture, vocab_size=99, pad_token_id=0, **sizes, **options)
    torch.manual_seed(0)
    model = AutoModelForMaskedLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path)
    ids = torch.arange(5, 13)[None]
    with torch.inference_mode():
        hidden = model.base_model(input_ids=ids).last_hidden_state[0]
        wanted = model(input_ids=ids).logits[0].numpy()
        assert close(MaskedLMHead(tmp_path)(hidden).numpy(), wanted)
    export_masked_lm(tmp_path, 32, tmp_path / "head.onnx")
    assert close(ort.InferenceSession(tmp_path / "head.onnx").run(None, {"hidden": hidden.numpy()})[0], wanted)


def test_a_checkpoint_that_lost_a_part_of_its_head_is_not_served_at_random(tiny: Tiny, tmp_path: Path) -> None:
    AutoModelForMaskedLM.from_pretrained(tiny.folder).base_model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="a part of BertForMaskedLM"):
        MaskedLMHead(tmp_path)
