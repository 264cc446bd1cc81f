"""Adapters that bring tokens answer as PEFT does on the resized model, with the tokenizer saved beside it."""

from __future__ import annotations

import functools
import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast

from rootstock.adapters.bundle import Limits, PlainFields, open_bundle
from rootstock.adapters.spec import Adapter
from rootstock.service.engine.encode.modalities.text import TextSample
from tests.parity.bench import MAX_RANK, Bench
from tests.parity.matrix import FAST, RUNNERS, TOKEN_ARCHITECTURES
from tests.parity.oracle import move
from tests.peft_adapters import close

# peft warns whenever it saves resized embeddings.
pytestmark = pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers` to `True`:UserWarning")

TASK = "text-classification"
ADDED = ["<acme>", "<zeta>"]
TEXTS = (
    "Where is my parcel? It was due on Monday, <acme> said.",
    "<zeta> met <acme>",
    "Ada Lovelace met Charles Babbage.",
)
Benches = Callable[[str], Bench]


class Brought(NamedTuple):
    """An adapter as the engine has it, its texts as it reads them, and PEFT's answers."""

    adapter: Adapter
    rows: list[TextSample]
    expected: list[np.ndarray]


@pytest.fixture(scope="module")
def benches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Benches]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield functools.cache(lambda name: Bench(name, tmp_path_factory.mktemp(name)))
    torch.set_num_threads(threads)


def saved(bench: Bench, folder: Path, kind: str) -> tuple[PreTrainedTokenizerFast, Callable[[], Any]]:
    """Save an adapter and its tokenizer; return the tokenizer and what makes the model to load it on."""
    tiny, architecture = bench.tiny, bench.tiny.architecture
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(tiny.folder / "tokenizer.json"))
    first = len(tokenizer)
    tokenizer.add_tokens(ADDED)
    known = bench.rows[1].ids[1]

    def base() -> Any:
        torch.manual_seed(5)
        model = AutoModelForSequenceClassification.from_pretrained(
            tiny.folder, num_labels=3, attn_implementation="eager"
        )
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        return model.eval()

    heads = list(architecture.heads.get(TASK, ("classifier",)))
    options: dict[str, Any] = {"target_modules": list(architecture.attention), "modules_to_save": heads}
    if kind == "rows":
        options["trainable_token_indices"] = [known, first, first + 1]
    else:
        options["modules_to_save"] = [*heads, architecture.words]
    model = get_peft_model(base(), LoraConfig(task_type="SEQ_CLS", r=4, **options))
    start = {n: p.detach().clone() for n, p in model.named_parameters() if architecture.words in n}
    move(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in start and "modules_to_save" in name:
                # Of the whole table, a training on few texts moves few rows.
                unmoved = [i for i in range(first) if i != known]
                parameter[unmoved] = start[name][unmoved]
    model.create_or_update_model_card = lambda _: None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return tokenizer, base


def zipped(folder: Path) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, path.name)
    return out.getvalue()


def brought(bench: Bench, folder: Path, kind: str) -> Brought:
    tokenizer, base = saved(bench, folder, kind)
    tiny = bench.tiny
    upload = open_bundle(zipped(folder), Limits(), tiny.spec, PlainFields(task=TASK), tiny.weights)
    # The store keeps no tokenizer file, and needs none.
    bundle = open_bundle(upload.to_zip(), Limits(), tiny.spec)
    assert bundle.digest == upload.digest
    adapter = bundle.adapter(tiny.spec, MAX_RANK, tiny.weights)
    reference = PeftModel.from_pretrained(base(), folder).get_base_model().eval()
    assert adapter.preprocessing.tokens is not None
    own = bench.tokenizer.extended(adapter.preprocessing.tokens)
    rows, expected = [], []
    for text in TEXTS:
        row = own.encode(text, adapter.preprocessing, truncate=False)
        assert list(row.ids) == tokenizer(text)["input_ids"]
        feeds = {"input_ids": [row.ids], "attention_mask": [[1] * len(row.ids)], "token_type_ids": [row.type_ids]}
        with torch.inference_mode():
            output = reference(**{n: torch.tensor(feeds[n]) for n in tiny.spec.inputs})
        rows.append(row)
        expected.append(output.logits[0].numpy())
    return Brought(adapter, rows, expected)


@pytest.mark.parametrize(
    "architecture", [pytest.param(n, marks=[] if n in FAST else [pytest.mark.slow]) for n in TOKEN_ARCHITECTURES]
)
def test_adapters_with_tokens_answer_as_peft_does_mixed_with_others(
    architecture: str, benches: Benches, tmp_path: Path
) -> None:
    bench = benches(architecture)
    bare = bench.served("feature-extraction")
    ones = [brought(bench, tmp_path / kind, kind) for kind in ("rows", "whole")]
    for one in ones:
        words = one.adapter.weights.words
        assert words is not None
        assert len(words.ids) == 1 + len(ADDED)
    for runner in RUNNERS:
        rows = [(one.adapter, row) for one in ones for row in one.rows]
        # The bare foundation on a text that an adapter reads too, and on another.
        rows += [(bare.adapter, ones[0].rows[2]), (bare.adapter, bench.rows[0])]
        outputs = bench.outputs(runner, rows)
        for output, wanted in zip(outputs, [e for one in ones for e in one.expected], strict=False):
            assert close(output, wanted), np.abs(output - wanted).max()
        assert close(outputs[-1], bare.expected[0])
        without = bench.outputs(runner, [(bare.adapter, ones[0].rows[2])])[0]
        assert close(outputs[-2], without)


def test_a_token_of_one_adapter_is_none_of_another(benches: Benches, tmp_path: Path) -> None:
    bench = benches("bert")
    one = brought(bench, tmp_path / "rows", "rows")
    plain = bench.served("feature-extraction").adapter.preprocessing
    table = bench.tiny.spec.words
    assert table is not None
    assert max(bench.tokenizer.encode(TEXTS[1], plain, truncate=False).ids) < table.rows
    assert one.adapter.preprocessing.tokens is not None
    own = bench.tokenizer.extended(one.adapter.preprocessing.tokens)
    again = own.encode(TEXTS[1], one.adapter.preprocessing, truncate=False)
    assert again.key == one.rows[1].key
    entry = own.token(max(again.ids))
    assert entry in ADDED
    assert bench.tokenizer.token(max(again.ids)) == ""
