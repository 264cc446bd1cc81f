"""Answers are those of transformers' FillMaskPipeline, for one mask and for several."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootstock.adapters.spec import Preprocessing
from rootstock.service.engine.core.errors import InvalidInput, InvalidParameter, TooLarge, TooLong
from rootstock.service.engine.encode.modalities.text import Tokenizer
from rootstock.service.engine.encode.tasks import TASKS
from rootstock.service.engine.encode.tasks.fill_mask import MAX_TARGETS, MAX_TOP_K
from rootstock.service.engine.encode.tasks.task import check_call
from tests.service.engine.tiny import VOCAB, WORDS, oracle, our_tokenizer, same

TASK = TASKS["fill-mask"]
pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = [
    "Ada Lovelace met [MASK] Babbage in London, in 1833!",
    "[MASK]",
    "[MASK] [MASK]",
    "unbelievable zzz [MASK] New York's naïve [MASK] ☕ (xxy) [MASK]",
    "e\u0301ee İstanbul[MASK]漢字 [SEP] [PAD] xx",
]
PARAMETERS: list[dict[str, Any]] = [
    {},
    {"top_k": None},
    {"top_k": 1},
    {"top_k": len(VOCAB)},
    {"targets": "paris"},
    {"targets": ["lon", "paris", "##lace", "[SEP]"]},
    {"targets": ["Paris", "york", "paris", "CAFÉ"], "top_k": 2},
    {"targets": ["york", "paris"], "top_k": 9},
]


def same_at_each(actual: Any, wanted: Any) -> None:
    """A list of tokens, or for several masks one a mask."""
    if isinstance(wanted[0], dict):
        actual, wanted = [actual], [wanted]
    for one, other in zip(actual, wanted, strict=True):
        same(one, other)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("parameters", PARAMETERS, ids=str)
def test_answers_are_the_pipeline_s(ours: Tokenizer, parameters: dict[str, Any], seed: int) -> None:
    model = oracle("fill-mask", ("a", "b"), seed=seed)
    for text in TEXTS:
        same_at_each(model.answer(text, parameters, ours), model.pipeline(text, **parameters))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from([*WORDS, "[MASK]", "[MASK],", "x[MASK]y"]), max_size=30),
    st.integers(0, 30),
    st.sampled_from(PARAMETERS),
    st.integers(0, 2),
)
def test_any_text_s_answers_are_the_pipeline_s(
    words: list[str], place: int, parameters: dict[str, Any], seed: int
) -> None:
    text = " ".join([*words[:place], "[MASK]", *words[place:]])
    model = oracle("fill-mask", ("a", "b"), seed=seed)
    wanted, actual = model.pipeline(text, **parameters), model.answer(text, parameters, our_tokenizer())
    same_at_each(actual, wanted)


@pytest.mark.parametrize(
    ("parameters", "param", "said"),
    [
        ({"top_k": 0}, "top_k", "0"),
        ({"top_k": 1.5}, "top_k", "1.5"),
        ({"top_k": MAX_TOP_K + 1}, "top_k", "at most 100"),
        ({"targets": []}, "targets", "at least one"),
        ({"targets": {"paris": 1}}, "targets", "a string or a list"),
        ({"targets": ["paris", 3]}, "targets", "a string or a list"),
        ({"targets": ["paris"] * (MAX_TARGETS + 1)}, "targets", "257 targets"),
        ({"targets": "new york"}, "targets", "'new york' is not one token"),
        ({"targets": ["paris", "lovelaces"]}, "targets", "'lovelaces' is not one token"),
        ({"targets": "zzz"}, "targets", "'zzz' is not one token"),
        ({"targets": ""}, "targets", "'' is not one token"),
        ({"targets": "a" + " " * 10**6}, "targets", "is not one token"),
        ({"function_to_apply": "softmax"}, "function_to_apply", "no parameter 'function_to_apply'"),
        ({"tokenizer_kwargs": {}}, "tokenizer_kwargs", "no parameter 'tokenizer_kwargs'"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_parameters_that_are_not_the_task_s_are_refused_by_their_name(
    ours: Tokenizer, parameters: dict[str, Any], param: str, said: str
) -> None:
    model = oracle("fill-mask", ("a", "b"))
    with pytest.raises(InvalidParameter, match=said) as refused:
        model.answer("[MASK]", parameters, ours)
    assert refused.value.param == f"parameters.{param}"


def test_an_input_without_a_mask_or_that_is_no_text_is_refused(ours: Tokenizer) -> None:
    with pytest.raises(InvalidInput, match=r"holds no \[MASK\]; put one"):
        TASK.encode("Ada loves London", Preprocessing(128), {}, ours, most=256)
    with pytest.raises(InvalidInput, match="takes a string"):
        check_call(TASK, [("[MASK]", "b")], {})


def test_truncation_counts_the_masks_that_it_leaves(ours: Tokenizer) -> None:
    limit = Preprocessing(8)
    with pytest.raises(TooLong):
        TASK.encode("[MASK] a a a a a a [MASK]", limit, {}, ours, most=256)
    (row,) = TASK.encode("[MASK] a a a a a a [MASK]", limit, {"truncation": True}, ours, most=256)
    assert (row.masks, len(row.ids)) == ((1,), 8)
    with pytest.raises(InvalidInput, match="after truncation"):
        TASK.encode("a a a a a a a [MASK]", limit, {"truncation": True}, ours, most=256)


def test_each_mask_counts_as_a_row_of_the_request(ours: Tokenizer) -> None:
    (row,) = TASK.encode("[MASK] " * 5, Preprocessing(128), {}, ours, most=5)
    assert row.outputs == 5
    with pytest.raises(TooLarge, match="becomes 5 rows, one for each mask; the request has 4 left"):
        TASK.encode("[MASK] " * 5, Preprocessing(128), {}, ours, most=4)
