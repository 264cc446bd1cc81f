"""A tokenizer with added tokens is the one that the library makes, and shares the foundation's model."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from tokenizers import AddedToken as HfToken
from tokenizers import Tokenizer

from rootstock.adapters.spec import Rejected
from rootstock.adapters.vocabulary.added_token import AddedToken
from rootstock.adapters.vocabulary.extended_tokenizer import extended_tokenizer, memory_of_tokens
from rootstock.service.engine.core.adapter_cache import memory_of
from tests.service.engine.fakes import make_adapter
from tests.tokenizer_families import FAMILIES, tokenizer_json

FLAGS = (
    {"special": True, "normalized": False},
    {"single_word": True},
    {"lstrip": True, "rstrip": True},
    {"normalized": False},
)


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_added_beside_the_foundation_s_give_the_tokenizer_that_the_library_makes(family: str) -> None:
    own, expected = Tokenizer.from_str(tokenizer_json(family)), Tokenizer.from_str(tokenizer_json(family))
    for i, flags in enumerate(FLAGS):
        add = expected.add_special_tokens if flags.get("special") else expected.add_tokens
        add([HfToken(f"<new{i}>", **flags)])
    stated = json.loads(expected.to_str())["added_tokens"][-len(FLAGS) :]
    tokens = [AddedToken(**token) for token in stated]
    before = own.to_str()
    extended = extended_tokenizer(own, tokens)
    assert extended.to_str() == expected.to_str()
    assert own.to_str() == before


def test_tokens_whose_flag_alternates_are_added_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call makes the index of all texts anew, so that a call for each token takes minutes."""
    own = Tokenizer.from_str(tokenizer_json(next(iter(FAMILIES))))
    first = own.get_vocab_size()
    tokens = [AddedToken(first + i, f"<{63 - i}>", special=bool(i % 2)) for i in range(64)]
    calls: list[str] = []

    class Counted:
        """A tokenizer whose calls that make the index are counted; the library's type has no subclasses."""

        def __init__(self, model: Any) -> None:
            self.__dict__["inner"] = Tokenizer(model)

        def __getattr__(self, name: str) -> Any:
            if name.startswith("add_"):
                calls.append(name)
            return getattr(self.inner, name)

        def __setattr__(self, name: str, value: Any) -> None:
            setattr(self.inner, name, value)

    monkeypatch.setattr("tokenizers.Tokenizer", Counted)
    extended = extended_tokenizer(own, tokens)
    assert len(calls) == 1
    known = extended.get_added_tokens_decoder()
    assert all((known[t.id].content, known[t.id].special) == (t.content, t.special) for t in tokens)
    ids = [token.id for token in tokens]
    assert extended.encode("".join(t.content for t in tokens), add_special_tokens=False).ids == ids
    assert extended.decode(ids[1::2], skip_special_tokens=True).strip() == ""


def test_a_text_counts_with_the_bytes_of_its_utf_8() -> None:
    own = Tokenizer.from_str(tokenizer_json(next(iter(FAMILIES))))

    def counted(text: str) -> int:
        return memory_of_tokens(own, [AddedToken(i, text * 255) for i in range(256)])

    none, plain, wide = counted(""), counted("x"), counted("😀")
    # 256 such tokens of emoji were measured to take 8.8 MiB.
    assert wide - none > 8.8 * 2**20
    assert wide - none == 4 * (plain - none)


def test_a_token_that_gets_another_id_than_it_states_is_refused() -> None:
    own = Tokenizer.from_str(tokenizer_json(next(iter(FAMILIES))))
    with pytest.raises(Rejected, match="gets the id"):
        extended_tokenizer(own, [AddedToken(own.get_vocab_size() + 5, "<new>")])


def test_an_adapter_in_memory_counts_its_tokenizer() -> None:
    own = Tokenizer.from_str(tokenizer_json(next(iter(FAMILIES))))

    class Counted:
        nbytes = memory_of_tokens(own, [AddedToken(i, "x" * 256) for i in range(1024)])

    adapter = make_adapter("sha256:0")
    more = dataclasses.replace(adapter, tokenizer=Counted())
    assert memory_of(more) - memory_of(adapter) == Counted.nbytes > 8 * 2**20
