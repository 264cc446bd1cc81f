"""A pipeline of the client answers as transformers' pipeline of the same adapter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import transformers
from transformers import AutoTokenizer

from rootstock.adapters.client.client import Client
from rootstock.adapters.client.errors import Misused
from tests.adapters.client.conftest import NLI_LABELS
from tests.live_server import RunningServer
from tests.masked_lm import pipeline_of
from tests.parity.foundations import Tiny
from tests.peft_adapters import TEXTS, PeftAdapter, peft_model
from tests.service.engine.generate.families import TinyDecoder

LABELS = ["neutral", "glad", "angry"]
PAIR = {"text": TEXTS[0], "text_pair": TEXTS[1]}


def same(found: Any, expected: Any) -> bool:
    """Tell whether two answers have one form and one content, with numbers within 1e-4."""
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(same(found[key], expected[key]) for key in expected)
    if isinstance(expected, list):
        return isinstance(found, list) and len(found) == len(expected) and all(map(same, found, expected))
    if isinstance(expected, (float, np.floating)):
        return bool(abs(found - expected) < 1e-4)
    return bool(found == expected)


@pytest.mark.parametrize("inputs", [TEXTS[0], TEXTS, TEXTS[:1], PAIR, [PAIR, PAIR]])
@pytest.mark.parametrize("parameters", [{}, {"top_k": None}, {"top_k": 2}, {"function_to_apply": "none"}])
def test_texts_are_classified(
    connected: Client, pipeline: Callable[..., Any], inputs: Any, parameters: dict[str, Any]
) -> None:
    expected = pipeline("text-classification", "mood", LABELS)(inputs, **parameters)
    assert same(connected.pipeline("mood")(inputs, **parameters), expected)


@pytest.mark.parametrize("inputs", [TEXTS[3], TEXTS, TEXTS[:1]])
@pytest.mark.parametrize("parameters", [{}, {"aggregation_strategy": "simple"}, {"ignore_labels": []}])
def test_tokens_are_classified(
    connected: Client, pipeline: Callable[..., Any], inputs: Any, parameters: dict[str, Any]
) -> None:
    expected = pipeline("token-classification", "tags")(inputs, **parameters)
    assert same(connected.pipeline("tags")(inputs, **parameters), expected)


@pytest.mark.parametrize("inputs", [TEXTS[0], TEXTS])
@pytest.mark.parametrize("parameters", [{}, {"multi_label": True}, {"hypothesis_template": "It is about {}."}])
def test_labels_of_the_request_are_scored(
    connected: Client, pipeline: Callable[..., Any], inputs: Any, parameters: dict[str, Any]
) -> None:
    labels = ["delivery", "music"]
    expected = pipeline("zero-shot-classification", "nli", NLI_LABELS)(inputs, labels, **parameters)
    assert same(connected.pipeline("nli")(inputs, labels, **parameters), expected)
    assert same(connected.pipeline("nli")(inputs, candidate_labels=labels, **parameters), expected)


@pytest.mark.parametrize(
    "inputs", ["the [MASK] is", ["the [MASK] is"], ["the [MASK] is", "a [MASK]"], "[MASK] [MASK]"]
)
def test_masks_are_filled(connected: Client, tiny: Tiny, inputs: Any) -> None:
    expected = pipeline_of(tiny.folder)(inputs, top_k=3)
    assert same(connected.pipeline("foundation", "fill-mask")(inputs, top_k=3), expected)


def test_a_question_is_answered_in_the_form_of_transformers_4(connected: Client) -> None:
    pipe = connected.pipeline("qa")
    question = {"question": "Who met Charles Babbage?", "context": TEXTS[3]}
    answer = pipe(**question)
    assert answer.keys() == {"score", "start", "end", "answer"}
    assert pipe(question) == answer
    assert pipe([question, question], top_k=2)[1][0] == answer


@pytest.mark.parametrize("full", [True, False])
def test_a_prompt_and_a_chat_are_continued(
    generating: RunningServer, decoder: TinyDecoder, decoder_saved: PeftAdapter, full: bool
) -> None:
    chat = [{"role": "user", "content": "Where is my parcel?"}]
    model = peft_model(decoder.folder, decoder_saved).merge_and_unload()
    # The server's random texts end with broken characters, which transformers spells out.
    tokenizer = AutoTokenizer.from_pretrained(decoder.folder)
    pipe = transformers.pipeline("text-generation", model=model, tokenizer=tokenizer, device="cpu")
    with Client(generating.url) as client:
        ours = client.pipeline("a0")
        for inputs in ("Once upon a time", ["Once upon", "In the end"], chat, [chat, chat]):
            options: dict[str, Any] = {"max_new_tokens": 6, "return_full_text": full}
            expected = pipe(inputs, do_sample=False, **options)
            assert ended(ours(inputs, **options)) == ended(expected)


def ended(answer: Any) -> Any:
    """Return an answer without the broken character at the end of its text."""
    if isinstance(answer, list):
        return [ended(one) for one in answer]
    if isinstance(answer, dict):
        return {key: ended(value) for key, value in answer.items()}
    return answer.rstrip("\ufffd") if isinstance(answer, str) else answer


def test_a_pipeline_has_the_task_of_its_model(connected: Client) -> None:
    assert connected.pipeline("nli").task == "zero-shot-classification"
    with pytest.raises(Misused, match="there is no input"):
        connected.pipeline("qa")(question="Who?")
    with pytest.raises(Misused, match="no pipeline for object-detection; choose text-classification"):
        connected.pipeline("mood", "object-detection")
