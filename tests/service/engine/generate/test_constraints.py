"""Answers under a grammar: random weights know no JSON, so that the constraint alone makes the answers valid."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from rootstock.service.engine.core.catalog import FOUNDATION
from rootstock.service.engine.core.errors import InvalidParameter
from rootstock.service.engine.generate.constraint.grammar import (
    Grammar,
    choice_grammar,
    json_grammar,
    regex_grammar,
    tool_grammar,
)
from rootstock.service.engine.generate.constraint.grammar_compiler import GrammarCompiler
from rootstock.service.engine.generate.constraint.token_constraint import TokenConstraint
from rootstock.service.engine.generate.constraint.tool_format import Tool
from rootstock.service.engine.generate.engine import GenerationEngine
from rootstock.service.engine.generate.prompt import PromptTokenizer
from rootstock.service.engine.generate.sampling_options import SamplingOptions
from rootstock.service.engine.generate.scheduler import StepLimits
from rootstock.service.engine.generate.stream import TextPiece
from rootstock.service.engine.runners.decoder.decoder import TorchDecoder
from tests.bounds import HANG
from tests.service.engine.generate.engines import run_engine
from tests.service.engine.generate.families import TinyDecoder, make_decoder

PROMPT = list(range(40, 60))
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "b", "long tag"]}, "maxItems": 3},
        "parent": {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyDecoder:
    return make_decoder("llama", tmp_path_factory.mktemp("llama") / "model", max_position_embeddings=512)


def _run(
    tiny: TinyDecoder,
    work: Callable[[GenerationEngine], Awaitable[Any]],
    cache_tokens: int = 8192,
    **options: Any,
) -> Any:
    decoder = TorchDecoder(tiny.folder, tiny.spec, 4, cache_tokens)
    return run_engine(tiny.spec, decoder, PromptTokenizer(tiny.folder), {}, work, **options)


async def _pieces(
    engine: GenerationEngine, grammar: Grammar | None, answers: int = 1, **values: Any
) -> list[TextPiece]:
    sampling = SamplingOptions(**{"max_tokens": 400, "seed": 1} | values)
    async with engine.generate(FOUNDATION, PROMPT, sampling, answers, grammar=grammar) as stream:
        return [piece async for piece in stream]


def _text(pieces: Sequence[TextPiece], index: int = 0) -> str:
    return "".join(piece.text for piece in pieces if piece.index == index)


def _finish(pieces: Sequence[TextPiece], index: int = 0) -> str | None:
    return [piece.finish for piece in pieces if piece.index == index][-1]


_words = st.text(st.sampled_from('abc é"\\/'), max_size=6)
_leaves = st.one_of(
    st.just({"type": "null"}),
    st.just({"type": "boolean"}),
    st.integers(0, 6).map(lambda n: {"type": "string", "maxLength": n}),
    st.integers(-99, 99).map(lambda n: {"type": "integer", "minimum": n, "maximum": n + 50}),
    st.lists(_words | st.integers(-9, 9) | st.none(), min_size=1, max_size=4).map(
        lambda values: {"enum": values}
    ),
    st.sampled_from([{"type": "string", "format": "date"}, {"type": "string", "pattern": "^[a-c]{2,5}$"}]),
)


def _nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    arrays = st.builds(
        lambda items, most: {"type": "array", "items": items, "maxItems": most}, inner, st.integers(0, 3)
    )
    objects = st.dictionaries(_words, inner, max_size=3).flatmap(
        lambda properties: st.sets(st.sampled_from(sorted(properties)) if properties else st.nothing()).map(
            lambda required: {
                "type": "object",
                "properties": properties,
                "required": sorted(required),
                "additionalProperties": False,
            }
        )
    )
    return arrays | objects | st.lists(inner, min_size=1, max_size=2).map(lambda of: {"anyOf": of})


schemas = st.recursive(_leaves, _nested, max_leaves=4)


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(schemas, min_size=6, max_size=6), st.integers(0, 2**31))
def test_an_answer_that_ends_by_itself_is_valid_under_any_schema(
    tiny: TinyDecoder, chosen: list[dict[str, Any]], seed: int
) -> None:
    async def work(engine: GenerationEngine) -> list[list[TextPiece]]:
        calls = (_pieces(engine, json_grammar(one, "schema"), seed=seed + i) for i, one in enumerate(chosen))
        return await asyncio.gather(*calls)

    ended = 0
    for schema, pieces in zip(chosen, _run(tiny, work), strict=True):
        if _finish(pieces) == "stop":
            ended += 1
            jsonschema.validate(json.loads(_text(pieces)), schema)
    assert ended >= 4


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": 0},
        {"temperature": 2.0, "seed": 3},
        {"seed": 3, "top_p": 0.1, "repetition_penalty": 3.0, "logit_bias": dict.fromkeys(range(200, 260), 100.0)},
        {"seed": 3, "min_tokens": 150, "presence_penalty": 2.0, "top_k": 1, "logprobs": 2},
        {"seed": 3, "ignore_eos": True},
    ],
    ids=str,
)
def test_no_option_of_sampling_leads_out_of_the_schema(tiny: TinyDecoder, values: dict[str, Any]) -> None:
    flat = {**PERSON, "properties": {k: v for k, v in PERSON["properties"].items() if k != "parent"}}
    pieces = _run(tiny, lambda engine: _pieces(engine, json_grammar(flat, "schema"), **values))
    assert _finish(pieces) == "stop"
    jsonschema.validate(json.loads(_text(pieces)), flat)


def test_an_answer_matches_its_regular_expression_or_is_one_of_the_choices(tiny: TinyDecoder) -> None:
    pattern = r"[A-Z]{2}-\d{3}(/x|é){1,2}"
    choices = ["yes", "no", "a longer one", 'with "quotes"\nand é', "/"]

    async def work(engine: GenerationEngine) -> tuple[list[TextPiece], list[TextPiece]]:
        matches = await _pieces(engine, regex_grammar(pattern, "regex"), answers=8)
        return matches, await _pieces(engine, choice_grammar(choices, "choice"), answers=16)

    matches, chosen = _run(tiny, work)
    assert {_finish(matches, i) for i in range(8)} == {_finish(chosen, i) for i in range(16)} == {"stop"}
    assert [_text(matches, i) for i in range(8) if not re.fullmatch(pattern, _text(matches, i))] == []
    texts = {_text(chosen, i) for i in range(16)}
    assert texts <= set(choices)
    assert len(texts) > 1


def test_an_answer_that_does_not_fit_in_its_tokens_ends_with_its_length(tiny: TinyDecoder) -> None:
    long = json_grammar({"type": "string", "minLength": 300}, "schema")
    pieces = _run(tiny, lambda engine: _pieces(engine, long, max_tokens=20))
    assert len(pieces) == 20
    assert _finish(pieces) == "length"


def test_a_sequence_that_loses_its_keys_and_values_keeps_its_place_in_the_grammar(tiny: TinyDecoder) -> None:
    grammar = json_grammar({**PERSON, "required": list(PERSON["properties"])}, "schema")

    async def work(engine: GenerationEngine) -> list[list[TextPiece]]:
        return await asyncio.gather(*(_pieces(engine, grammar, seed=i, max_tokens=100) for i in range(10)))

    roomy = _run(tiny, work)
    narrow = _run(tiny, work, cache_tokens=3 * 128, steps=StepLimits(quantum=4))
    assert [_tokens(one) for one in narrow] == [_tokens(one) for one in roomy]


def _tokens(pieces: Sequence[TextPiece]) -> list[int]:
    return [piece.choice.token for piece in pieces]


def test_sequences_with_and_without_grammars_in_one_step_have_the_tokens_that_each_has_alone(
    tiny: TinyDecoder,
) -> None:
    grammars = [None, json_grammar(PERSON, "schema"), regex_grammar("(ab|c){2,9}", "regex"), None] * 2
    values: list[dict[str, Any]] = [
        {"temperature": 0.0 if i % 2 else 1.0, "seed": i, "max_tokens": 60} for i in range(8)
    ]

    async def together(engine: GenerationEngine) -> list[list[TextPiece]]:
        return await asyncio.gather(*(_pieces(engine, g, **v) for g, v in zip(grammars, values, strict=True)))

    async def alone(engine: GenerationEngine) -> list[list[TextPiece]]:
        return [await _pieces(engine, g, **v) for g, v in zip(grammars, values, strict=True)]

    assert [_tokens(one) for one in _run(tiny, together)] == [_tokens(one) for one in _run(tiny, alone)]


def test_a_client_that_leaves_a_constrained_answer_frees_its_room(tiny: TinyDecoder) -> None:
    grammar = json_grammar({"type": "string", "minLength": 300}, "schema")

    async def leave(engine: GenerationEngine) -> None:
        async with engine.generate(
            FOUNDATION, PROMPT, SamplingOptions(max_tokens=300), grammar=grammar
        ) as stream:
            async for _ in stream:
                return

    async def work(engine: GenerationEngine) -> list[TextPiece]:
        await asyncio.gather(*(leave(engine) for _ in range(4)))
        return await _pieces(engine, choice_grammar(["done"], "choice"))

    assert _text(_run(tiny, work)) == "done"


# Patterns that must hold for one text multiply.
MEETING = {"type": "string", "pattern": ".*a.{12}b"}


def _alternatives(count: int) -> dict[str, Any]:
    arrays = [{"type": "array", "items": {"$ref": "#/$defs/e"}, "minItems": i % 3} for i in range(count)]
    return {"$defs": {"e": {"anyOf": arrays}}, "$ref": "#/$defs/e"}


BAD: dict[str, tuple[Callable[[], Grammar], str]] = {
    "type": (lambda: json_grammar({"type": "strng"}, "p"), "Invalid type: strng"),
    "keyword": (lambda: json_grammar({"type": "array", "uniqueItems": True}, "p"), "uniqueItems"),
    "pattern": (lambda: json_grammar({"type": "string", "pattern": "(a"}, "p"), "unclosed group"),
    "unsatisfiable": (lambda: json_grammar({"type": "integer", "minimum": 3, "maximum": 2}, "p"), "minimum"),
    "remote": (lambda: json_grammar({"$ref": "file:///etc/passwd"}, "p"), "does not fetch"),
    "itself": (lambda: json_grammar({"$ref": "#"}, "p"), "cannot be compiled"),
    "regex": (lambda: regex_grammar("(a", "p"), "unclosed group"),
    "look-around": (lambda: regex_grammar("(?=a)b", "p"), "look-around"),
    "surrogate": (lambda: regex_grammar("\ud800", "p"), "surrogate"),
    "surrogates": (lambda: choice_grammar(["\ud800"], "p"), "surrogate"),
    "surrogate key": (lambda: json_grammar({"properties": {"\ud800": True}}, "p"), "cannot be compiled"),
    "switches": (
        lambda: json_grammar({"type": "array", "uniqueItems": True, "x-guidance": {"lenient": True}}, "p"),
        "uniqueItems",
    ),
    "long regex": (lambda: regex_grammar("a?" * 3000, "p"), "6000 characters"),
    "long pattern": (lambda: json_grammar({"items": {"pattern": "a?" * 3000}}, "p"), "6000 characters"),
    "divisor": (lambda: json_grammar({"type": "integer", "multipleOf": 999983}, "p"), "multipleOf"),
    "fine divisor": (lambda: json_grammar({"type": "number", "multipleOf": 0.00012345}, "p"), "multipleOf"),
    "infinite divisor": (lambda: json_grammar({"type": "number", "multipleOf": float("inf")}, "p"), "multipleOf"),
    "no divisor": (lambda: json_grammar({"type": "integer", "multipleOf": True}, "p"), "cannot be compiled"),
    "all of": (lambda: json_grammar({"allOf": [MEETING] * 13}, "p"), "the limit is 12"),
    "any of in any of": (
        lambda: json_grammar({**MEETING, "anyOf": [{**MEETING, "anyOf": [MEETING] * 12}]}, "p"),
        "the limit is 12",
    ),
    "reference beside": (
        lambda: json_grammar({"$defs": {"a": {"items": [MEETING] * 12}}, "$ref": "#/$defs/a", **MEETING}, "p"),
        "the limit is 12",
    ),
    "array alternatives": (lambda: json_grammar(_alternatives(300), "p"), "cannot be compiled"),
    "long repeats": (lambda: regex_grammar("(a{1000}){1000}", "p"), "cannot be compiled"),
    "large": (lambda: json_grammar({"enum": ["a" * 9] * 9999}, "p"), "65536 characters"),
    "choices": (lambda: choice_grammar(["a" * 9] * 9999, "p"), "65536 characters"),
    "tool": (
        lambda: tool_grammar(
            [Tool("f", "", {"type": "object"}, "q"), Tool("g", "", {"type": "strng"}, "p")], "tools", True, True
        ),
        "Invalid type",
    ),
    "tools": (
        lambda: tool_grammar(
            [Tool(f"f{i}", "", {"enum": ["a" * 60000]}, "q") for i in range(3)], "p", True, True
        ),
        "together",
    ),
}


@pytest.fixture(scope="module")
def compiler(tiny: TinyDecoder) -> GrammarCompiler:
    tokenizer = PromptTokenizer(tiny.folder)
    return GrammarCompiler(tokenizer.to_json, tiny.spec.causal_lm.vocabulary, tiny.spec.causal_lm.stop_ids)


@pytest.mark.parametrize("name", BAD)
def test_a_grammar_that_is_not_valid_or_too_large_is_refused_with_its_field(
    compiler: GrammarCompiler, name: str
) -> None:
    make, message = BAD[name]
    with pytest.raises(InvalidParameter, match=message) as caught:
        asyncio.run(compiler.compile(make(), 1))
    assert caught.value.param == "p"


def test_patterns_that_never_meet_are_not_limited_in_number(compiler: GrammarCompiler) -> None:
    fields = {f"p{i}": {"$ref": "#/$defs/plate", "description": "a plate"} for i in range(30)}
    plate = {"anyOf": [{"type": "string", "pattern": f"^[A-Z]{{{n}}}$"} for n in range(1, 20)]}
    schema = {"type": "object", "properties": fields, "required": ["p0"], "$defs": {"plate": plate}}
    assert asyncio.run(compiler.compile(json_grammar(schema, "p"), 2))


def test_a_compilation_that_nobody_waits_for_any_more_lets_the_next_one_follow(compiler: GrammarCompiler) -> None:
    async def work() -> int:
        hurried = asyncio.create_task(compiler.compile(HOSTILE["chain"](), 1))
        await asyncio.sleep(0)
        hurried.cancel()
        return len(await compiler.compile(regex_grammar("a", "p"), 3))

    assert asyncio.run(work()) == 3


def _chain(length: int, link: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """Return a schema whose definitions refer to one another in a chain, so that a compiler recurses deeply."""
    links = {str(i): link({"$ref": f"#/$defs/{i + 1}"}) for i in range(length)}
    return {"$ref": "#/$defs/0", "$defs": {**links, str(length): {"type": "string"}}}


def _deep(inner: dict[str, Any], depth: int = 40) -> dict[str, Any]:
    for _ in range(depth):
        inner = {"prefixItems": [inner]}
    return inner


HOSTILE = {
    "chain": lambda: json_grammar(_chain(1500, lambda inner: {"items": inner}), "p"),
    "chain of all": lambda: json_grammar(_chain(1500, lambda inner: {"allOf": [inner]}), "p"),
    "deep chain": lambda: json_grammar(_chain(80, _deep), "p"),
    "optional": lambda: json_grammar({"properties": {f"p{i}": True for i in range(2000)}}, "p"),
    "optional atoms": lambda: regex_grammar("a?" * 2048, "p"),
    "repeats": lambda: regex_grammar(r"((\w{1,100}){1,100}){1,100}" * 20, "p"),
    "states": lambda: regex_grammar(r".*\w.{50}\d.{50}[a-f].{50}", "p"),
    "divisors": lambda: json_grammar({"allOf": [{"multipleOf": n} for n in (9973, 9967, 9949)]}, "p"),
    "doubling": lambda: json_grammar(
        {"$ref": "#/$defs/30", "$defs": {"0": {"type": "string"}}
         | {str(i): {"allOf": [{"$ref": f"#/$defs/{i - 1}"}] * 2} for i in range(1, 31)}}, "p"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_grammar_is_compiled_or_refused_and_its_steps_end(compiler: GrammarCompiler, name: str) -> None:
    began = time.monotonic()
    with suppress(InvalidParameter):
        constraint = asyncio.run(compiler.compile(HOSTILE[name](), 1))[0]
        for step in range(50):
            if constraint.ended:
                break
            allowed = np.flatnonzero(constraint.allowed())
            constraint.accept(int(allowed[step % len(allowed)]))
    assert time.monotonic() - began < HANG


def test_the_loop_goes_on_while_a_grammar_is_compiled(tiny: TinyDecoder) -> None:
    async def work(engine: GenerationEngine) -> int:
        call = asyncio.ensure_future(_pieces(engine, HOSTILE["optional"](), max_tokens=1))
        turns = 0
        while not call.done():
            await asyncio.sleep(0)
            turns += 1
        await asyncio.gather(call, return_exceptions=True)
        return turns

    assert _run(tiny, work) > 1


def test_a_grammar_that_becomes_too_complex_ends_its_own_answer_alone(tiny: TinyDecoder) -> None:
    async def work(engine: GenerationEngine) -> tuple[Any, list[TextPiece]]:
        states = _pieces(engine, regex_grammar(r".*\w.{50}\d.{50}[a-f].{50}", "regex"), ignore_eos=True)
        first, second = await asyncio.gather(states, _pieces(engine, None, max_tokens=20), return_exceptions=True)
        return first, second

    first, second = _run(tiny, work)
    assert isinstance(first, InvalidParameter)
    assert first.param == "regex"
    assert "cannot follow" in str(first)
    assert 0 < len(second) <= 20


CALL = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'


@pytest.mark.parametrize(
    ("text", "forced", "parallel", "ends"),
    [
        ("Hello <tool", False, True, True),
        (CALL, False, True, True),
        (f"Hello\n{CALL}\n{CALL}", False, True, True),
        (f"{CALL}\n{CALL}", True, True, True),
        (CALL, True, False, True),
        (f"{CALL}\n{CALL}", True, False, False),
        (f"Hello{CALL}", True, True, False),
        (f"{CALL} and text", False, True, False),
        ('<tool_call>\n{"name": "g"', False, True, False),
        ('<tool_call>\n{"name": "f", "arguments": {"a": "1"', False, True, False),
        (CALL.replace("<", "<<"), False, True, False),
    ],
)
def test_calls_follow_their_form_and_schema_and_a_text_holds_none(
    compiler: GrammarCompiler, tiny: TinyDecoder, text: str, forced: bool, parallel: bool, ends: bool
) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    grammar = tool_grammar([Tool("f", "", schema, "p")], "tools", forced, parallel)
    (constraint,) = asyncio.run(compiler.compile(grammar, 1))
    tokenizer = Tokenizer.from_file(str(tiny.folder / "tokenizer.json"))
    followed = all(_follow(constraint, token) for token in tokenizer.encode(text).ids)
    assert (followed and constraint.allowed()[2]) == ends


def _follow(constraint: TokenConstraint, token: int) -> bool:
    if not constraint.allowed()[token]:
        return False
    constraint.accept(token)
    return True


@pytest.mark.parametrize("kind", ["byte level", "byte fallback"])
def test_a_grammar_fits_the_vocabulary_of_each_kind_of_tokenizer(kind: str) -> None:
    tokenizer = _tokenizers()[kind]
    size = tokenizer.get_vocab_size()
    end = tokenizer.token_to_id("</s>")
    # Models pad their vocabulary: there are more logits than tokens.
    compiler = GrammarCompiler(tokenizer.to_str, size + 7, [end])
    (constraint,) = asyncio.run(compiler.compile(choice_grammar(["é a", "b"], "choice"), 1))
    for token in tokenizer.encode("é a", add_special_tokens=False).ids:
        allowed = constraint.allowed()
        assert allowed.shape == (size + 7,)
        if not allowed[token]:
            continue
        constraint.accept(token)
    assert constraint.ended


def test_a_tokenizer_that_the_library_does_not_read_is_refused_with_the_field() -> None:
    compiler = GrammarCompiler(_tokenizers()["metaspace"].to_str, 9, [0])
    with pytest.raises(InvalidParameter, match="this model's tokenizer fits no grammar") as caught:
        asyncio.run(compiler.compile(choice_grammar(["a"], "choice"), 1))
    assert caught.value.param == "choice"


def _tokenizers() -> dict[str, Tokenizer]:
    alphabet = {"</s>": 0, "<unk>": 1, "▁": 2, "a": 3, "b": 4, "▁a": 5}
    fallback = Tokenizer(
        models.BPE(
            alphabet | {f"<0x{i:02X}>": 6 + i for i in range(256)},
            [("▁", "a")],
            unk_token="<unk>",
            byte_fallback=True,
        )
    )
    fallback.normalizer = normalizers.Replace(" ", "▁")
    fallback.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    meta = Tokenizer(models.BPE(alphabet | {"é": 6}, [("▁", "a")], unk_token="<unk>"))
    meta.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    meta.decoder = decoders.Metaspace(prepend_scheme="never")
    level = Tokenizer(
        models.BPE({"</s>": 0} | {c: i + 1 for i, c in enumerate(pre_tokenizers.ByteLevel.alphabet())}, [])
    )
    level.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    level.decoder = decoders.ByteLevel()
    for tokenizer in (fallback, meta, level):
        tokenizer.add_special_tokens(["</s>"])
    return {"byte level": level, "byte fallback": fallback, "metaspace": meta}


def test_ends_that_are_ignored_are_allowed_only_where_nothing_else_is(tiny: TinyDecoder) -> None:
    tokenizer = PromptTokenizer(tiny.folder)
    language = tiny.spec.causal_lm
    assert language is not None
    ends = list(language.stop_ids)
    compiler = GrammarCompiler(tokenizer.to_json, language.vocabulary, ends)

    async def masks(ignore: bool) -> list[Any]:
        (constraint,) = await compiler.compile(regex_grammar("a(b)?", "regex"), 1, ignore)
        constraint.accept(tokenizer.encode("a", special=False)[0])
        return [constraint.allowed()]

    (kept,), (left,) = asyncio.run(masks(False)), asyncio.run(masks(True))
    assert kept[ends].any()
    assert not left[ends].any()
    assert left.any()
