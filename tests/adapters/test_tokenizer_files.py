"""A folder is refused just where transformers would tokenise otherwise than its tokenizer.json says."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from rootstock.adapters.foundation.location import FoundationError, locate
from rootstock.adapters.foundation.tokenizer_files import disagreement
from tests.attacks.forge import tiny_bert
from tests.tokenizer_families import OF_ARCHITECTURE, save_tokenizer, tokenizer_json

TEXTS = ("Ada Lovelace went to London", "New York's CAFÉS, cafés!", "漢字 a漢b", "broke,within.")
# transformers gives DeBERTa's tokenizer another way with what it does not know.
KNOWN = (TEXTS[0], TEXTS[3])
OTHERS = (
    ("bert", "cased WordPiece"),
    ("roberta", "byte-level BPE, trimmed, with a space before"),
    ("deberta-v2", "lower-casing Unigram"),
)
KEYS = (
    "do_lower_case", "strip_accents", "tokenize_chinese_chars", "keep_accents", "add_prefix_space",
    "split_by_punct",
)  # fmt: skip


def settings() -> list[dict[str, Any]]:
    """Nothing, each key alone, and two of them; for classes of every kind."""
    single = [{key: value} for key, value in product(KEYS, (True, False))]
    cased = [{"do_lower_case": False, **one} for one in single]
    return [{}, *single, *cased, {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": True}]


@pytest.mark.parametrize(("architecture", "family"), [*OF_ARCHITECTURE.items(), *OTHERS])
def test_the_two_files_disagree_just_where_transformers_gives_other_tokens(
    architecture: str, family: str, tmp_path: Path
) -> None:
    save_tokenizer(family, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": architecture}))
    texts = KNOWN if architecture == "deberta-v2" else TEXTS
    ours = Tokenizer.from_str(tokenizer_json(family))
    for config in settings():
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
        theirs = AutoTokenizer.from_pretrained(tmp_path)
        agree = all(theirs(text)["input_ids"] == ours.encode(text).ids for text in texts)
        told = disagreement(config, json.loads(tokenizer_json(family)), architecture)
        assert (told is None) == agree, (config, told)


def test_the_slow_and_the_fast_class_s_names_are_one() -> None:
    config = {"tokenizer_class": "BertTokenizerFast", "do_lower_case": False}
    told = disagreement(config, json.loads(tokenizer_json("lower-casing WordPiece")), None)
    assert told is not None
    assert told.startswith("tokenizer_config.json says do_lower_case false, and for tokenizer.json it is true;")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"do_lower_case": True}, None),
        ({"truncation_side": "right", "padding_side": "left"}, None),
        ({"truncation_side": "left"}, "truncation_side 'left'"),
        ({"added_tokens_decoder": {"0": {"content": "[PAD]"}, "5": {"content": "word0"}}}, None),
        ({"added_tokens_decoder": {"64": {"content": "<new>"}}}, "the token '<new>' the id 64 .* gives it none"),
        ({"added_tokens_decoder": {"7": {"content": "word0"}}}, "the token 'word0' the id 7 .* the id 5"),
    ],
)
def test_a_folder_whose_files_disagree_is_refused_by_what_they_disagree_on(
    config: dict[str, Any], words: str | None, tmp_path: Path
) -> None:
    """The tiny foundation's tokenizer.json has no normalizer that a class could set otherwise."""
    folder = tiny_bert(tmp_path / "tiny").folder
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **config})
    )
    if words is None:
        assert locate(str(folder)).folder == folder
        return
    with pytest.raises(FoundationError, match=words):
        locate(str(folder))
