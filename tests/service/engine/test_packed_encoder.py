"""Heads on a decoder give PEFT's outputs, however batches are put together, while the decoder generates."""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from rootstock.adapters.foundation.architecture import describe
from rootstock.adapters.foundation.location import locate
from rootstock.adapters.spec import Adapter, AdapterWeights, HeadSpec, Preprocessing
from rootstock.service.engine.core.catalog import foundation_adapter, generation_adapter
from rootstock.service.engine.encode.batch import Batch
from rootstock.service.engine.encode.modalities.text import Tokenizer, pad
from rootstock.service.engine.generate.decoder import Segment
from rootstock.service.engine.runners.decoder.decoder import TorchDecoder
from rootstock.service.engine.runners.decoder.packed_encoder import PackedEncoder
from tests.peft_adapters import PeftAdapter, close, peft_model, save_adapter
from tests.service.engine.generate.families import FAMILIES, TARGETS, TinyDecoder, make_decoder

# The padding token ends the fourth text and is the whole fifth; the last is longer than Mistral's window.
TEXTS = (
    "ok",
    "Where is my parcel? It was due on Monday.",
    "a",
    "The left ear cup broke.<|endoftext|><|endoftext|>",
    "<|endoftext|>",
    "Ada Lovelace met Charles Babbage in London in June 1833, at a party in Dorset Street.",
)


# The families of which transformers has both classes with heads.
WITH_HEADS = [
    family
    for family in FAMILIES
    if all(
        type(AutoConfig.for_model(family)) in auto._model_mapping
        for auto in (AutoModelForSequenceClassification, AutoModelForTokenClassification)
    )
]


@dataclass(frozen=True)
class Heads:
    """A foundation that generates, adapters with heads on it, and PEFT's output of each for each of TEXTS."""

    tiny: TinyDecoder
    adapters: Sequence[Adapter]
    expected: Sequence[Sequence[np.ndarray]]

    def batch(self, rows: Sequence[tuple[int, int]]) -> Batch:
        """Return rows of (adapter, text)."""
        tokenizer = Tokenizer(self.tiny.folder / "tokenizer.json")
        samples = [tokenizer.encode(TEXTS[text], Preprocessing(128), False) for _, text in rows]
        return pad(samples, [adapter for adapter, _ in rows], tokenizer.pad_id)

    def opened(self) -> tuple[TorchDecoder, PackedEncoder]:
        """Return both runners on one trunk. Each has other adapters in its slots."""
        decoder = TorchDecoder(self.tiny.folder, self.tiny.spec, slots=16, cache_tokens=1024)
        encoder = PackedEncoder(decoder.trunk, decoder.slots, decoder.cores)
        for slot, adapter in enumerate(self.adapters):
            encoder.place(slot, encoder.stage(adapter))
        return decoder, encoder

    def check(self, encoder: PackedEncoder, rows: Sequence[tuple[int, int]]) -> None:
        for (adapter, text), output in zip(rows, encoder.run(self.batch(rows)), strict=True):
            assert output.dtype == np.float32
            assert close(output, self.expected[adapter][text]), f"adapter {adapter}, text {text}"


# Tokens of one byte, of which each text has some.
TRAINED = list(range(10, 100))
_WORDS = {"gpt2": "wte", "gpt_neox": "embed_in"}


def _kinds(family: str) -> list[tuple[str, int, dict[str, Any]]]:
    attention, other = TARGETS.get(family, (["q_proj", "v_proj"], "up_proj"))
    words = [_WORDS.get(family, "embed_tokens")]
    return [
        ("SEQ_CLS", 3, {"r": 8, "target_modules": "all-linear"}),
        ("SEQ_CLS", 2, {"r": 4, "target_modules": [*attention, other], "use_rslora": True, "lora_alpha": 16}),
        ("SEQ_CLS", 7, {"r": 4, "target_modules": attention, "use_dora": True}),
        (
            "SEQ_CLS",
            1,
            {"kind": "IA3", "target_modules": [attention[-1], other], "feedforward_modules": [other]},
        ),
        ("TOKEN_CLS", 5, {"r": 2, "target_modules": attention}),
        ("FEATURE_EXTRACTION", 0, {"r": 8, "target_modules": attention}),
        ("FEATURE_EXTRACTION", 0, {"r": 2, "target_modules": [other], "use_dora": True}),
        ("SEQ_CLS", 3, {"r": 2, "target_modules": attention, "trainable_token_indices": TRAINED}),
        # It changes no layer, and yet shares no states with adapters that are a head alone.
        (
            "FEATURE_EXTRACTION",
            0,
            {"kind": "TRAINABLE_TOKENS", "token_indices": TRAINED[1:], "target_modules": words},
        ),
    ]


def _oracle(tiny: TinyDecoder, saved: PeftAdapter) -> list[np.ndarray]:
    """Return PEFT's output for each text: logits, or the last token's hidden state, normalised."""
    model, outputs = peft_model(tiny.folder, saved), []
    for text in TEXTS:
        ids = Tokenizer(tiny.folder / "tokenizer.json").encode(text, Preprocessing(128), False).ids
        with torch.no_grad():
            out = model(input_ids=torch.tensor([ids]))
        if "logits" in out:
            outputs.append(out.logits[0].numpy())
        else:
            outputs.append(torch.nn.functional.normalize(out.last_hidden_state[0, -1], dim=0).numpy())
    return outputs


def _make(family: str, root: Path) -> Heads:
    tiny = make_decoder(family, root / "model")
    saved = [
        save_adapter(tiny.folder, root / str(seed), task, seed, labels, **kind)
        for seed, (task, labels, kind) in enumerate(_kinds(family))
    ]
    adapters = [tiny.opened(one) for one in saved]
    expected = [_oracle(tiny, one) for one in saved]
    # A head alone, twice, and the bare foundation: none of them changes the trunk.
    draw = np.random.default_rng(0)
    bare = BareStates(tiny)
    for labels in (2, 4):
        weight = np.asarray(draw.standard_normal((labels, 32)), np.float32)
        adapters.append(
            replace(adapters[0], labels=("x",) * labels, weights=AdapterWeights({}, {"score.weight": weight}))
        )
        expected.append([weight @ bare.states(text)[bare.last(text)] for text in TEXTS])
    adapters.append(foundation_adapter(tiny.spec))
    expected.append([bare.states(text)[-1] / np.linalg.norm(bare.states(text)[-1]) for text in TEXTS])
    mean = HeadSpec("linear", pooling="mean")
    adapters.append(replace(foundation_adapter(tiny.spec), head=mean))
    expected.append([bare.states(text).mean(axis=0) for text in TEXTS])
    return Heads(tiny, adapters, expected)


class BareStates:
    """transformers' hidden states of a bare foundation."""

    def __init__(self, tiny: TinyDecoder) -> None:
        self._model = AutoModel.from_pretrained(tiny.folder).eval()
        self._tokenizer = Tokenizer(tiny.folder / "tokenizer.json")

    def ids(self, text: str) -> Sequence[int]:
        return self._tokenizer.encode(text, Preprocessing(128), False).ids

    def states(self, text: str) -> np.ndarray:
        with torch.no_grad():
            states: torch.Tensor = self._model(input_ids=torch.tensor([self.ids(text)])).last_hidden_state[0]
        return states.numpy()

    def last(self, text: str) -> int:
        return max((i for i, token in enumerate(self.ids(text)) if token != 0), default=0)


@pytest.fixture(scope="module", params=WITH_HEADS)
def heads(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Heads:
    return _make(request.param, tmp_path_factory.mktemp(request.param))


def test_a_batch_of_many_adapters_heads_and_tasks_gives_the_outputs_of_peft(heads: Heads) -> None:
    _, encoder = heads.opened()
    rows = [(adapter, text) for adapter in range(len(heads.adapters)) for text in range(len(TEXTS))]
    draw = random.Random(0)
    for count in (len(rows), 20, 7, 3):
        draw.shuffle(rows)
        heads.check(encoder, rows[:count])
    for row in rows:
        heads.check(encoder, [row])


def test_a_model_of_sentence_transformers_embeds_as_it_does_itself(tmp_path: Path) -> None:
    tiny = make_decoder("qwen3", tmp_path / "tiny")
    width = tiny.spec.hidden_size
    modules = [Transformer(str(tiny.folder)), Pooling(width, "lasttoken"), Normalize()]
    prompts = {"query": "Instruct: find the answer\nQuery: "}
    model = SentenceTransformer(modules=modules, device="cpu", prompts=prompts, default_prompt_name="query")
    model.save(str(tmp_path / "saved"))
    # Qwen3-Embedding has no such file. With it, the library would put each text into the chat template.
    (tmp_path / "saved" / "sentence_bert_config.json").unlink()
    model = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    spec = describe(locate(str(tmp_path / "saved")))
    decoder = TorchDecoder(tmp_path / "saved", spec, slots=3, cache_tokens=64)
    encoder = PackedEncoder(decoder.trunk, 3, decoder.cores)
    own = foundation_adapter(spec)
    encoder.place(0, encoder.stage(own))
    tokenizer = Tokenizer(tmp_path / "saved" / "tokenizer.json")
    samples = [tokenizer.encode(text, own.preprocessing, False) for text in TEXTS]
    vectors = encoder.run(pad(samples, [0] * len(samples), tokenizer.pad_id))
    for mine, wanted in zip(vectors, model.encode(list(TEXTS), show_progress_bar=False), strict=True):
        assert close(mine, np.asarray(wanted))


def test_an_adapter_that_takes_a_slot_replaces_the_one_that_had_it(heads: Heads) -> None:
    _, encoder = heads.opened()
    heads.check(encoder, [(0, 1), (1, 1)])
    encoder.clear(0)
    encoder.place(0, encoder.stage(heads.adapters[2]))
    (output,) = encoder.run(heads.batch([(0, 1)]))
    assert close(output, heads.expected[2][1])


def test_an_input_without_tokens_is_answered_as_one_token_of_padding(heads: Heads) -> None:
    _, encoder = heads.opened()
    tokenizer = Tokenizer(heads.tiny.folder / "tokenizer.json")
    samples = [tokenizer.encode(text, Preprocessing(128), False) for text in ("", "", "ok")]
    empty, tags, ok = encoder.run(pad(samples, [0, 4, 0], tokenizer.pad_id))
    assert close(empty, heads.expected[0][4])
    assert tags.shape == (0, 5)
    assert close(ok, heads.expected[0][0])


def test_texts_are_generated_and_classified_at_once_on_the_same_modules(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    heads = _make("llama", tmp_path_factory.mktemp("both"))
    decoder, encoder = heads.opened()
    tiny = heads.tiny
    saved = save_adapter(
        tiny.folder, tmp_path_factory.mktemp("saved") / "0", "CAUSAL_LM", 1, target_modules=["q_proj"]
    )
    assert tiny.spec.causal_lm is not None
    decoder.place(0, decoder.stage(generation_adapter(tiny.spec, tiny.spec.causal_lm)))
    decoder.place(1, decoder.stage(tiny.opened(saved)))
    prompt = list(range(40, 60))
    expected = [tiny.greedy(one, prompt, 12) for one in (None, saved)]

    def generate(_: int) -> list[list[int]]:
        rows = [decoder.cache.open() for _ in range(2)]
        answers: list[list[int]] = [[], []]
        for row in rows:
            assert decoder.cache.extend(row, 64)
        for _ in range(12):
            segments = [
                Segment(row, slot, answer[-1:] or prompt, len(prompt) + len(answer) - 1 if answer else 0)
                for slot, (row, answer) in enumerate(zip(rows, answers, strict=True))
            ]
            for answer, logits in zip(answers, decoder.run(segments), strict=True):
                answer.append(int(logits.argmax()))
        for row in rows:
            decoder.cache.close(row)
        return answers

    every = [(adapter, text) for adapter in range(len(heads.adapters)) for text in range(len(TEXTS))]
    with ThreadPoolExecutor(2) as threads:
        generated = threads.submit(lambda: [generate(i) for i in range(10)])
        classified = threads.submit(lambda: [heads.check(encoder, every) for _ in range(20)])
        for answers in generated.result():
            for answer, tokens in zip(answers, expected, strict=True):
                # transformers stops at the end token.
                assert answer[: len(tokens)] == tokens
        classified.result()
