"""Pairs of prompt and answer: what is read, what is refused with file, line and column, and how it is split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoTokenizer

from rootstock.adapters.chat_template import ChatTemplate
from rootstock.adapters.spec import Prompting
from rootstock.service.engine.generate.prompt import Chat, PromptTokenizer
from rootstock.training.data.pair_split import drawn_groups, split_pairs
from rootstock.training.data.prompt_encoding import ChatEncoder
from rootstock.training.data.text_pairs import grouped, read_pairs
from rootstock.training.errors import DataError, RecipeError
from rootstock.training.fit.generation_job import prepare_generation
from rootstock.training.recipe.recipe_file import RecipeFile, load_recipe
from rootstock.training.recipe.template import ColumnTemplate
from tests.adapters.chat_templates import QWEN_2_5
from tests.service.engine.generate.families import TinyDecoder, make_decoder
from tests.training.generation_recipe import write_generation_recipe, write_rows

CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
RECIPES = sorted((Path(__file__).parents[2] / "training" / "recipes" / "generation").glob("*.yaml"))


def recipe(folder: Path, **changes: Any) -> RecipeFile:
    value = {
        "task_type": "CAUSAL_LM", "name": "a", "license": "b", "description": "c", "data": {"path": "rows.csv"},
        **changes,
    }  # fmt: skip
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(value), encoding="utf-8")
    return load_recipe(path)


def chats(folder: Path, *rows: Any) -> RecipeFile:
    lines = [json.dumps({"messages": row}) for row in rows]
    (folder / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return recipe(folder, data={"path": "rows.jsonl", "messages_column": "messages"})


def test_columns_fill_the_templates(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("mr,ref,id\n name[A] , It is A. ,7\n", encoding="utf-8")
    prompts = {"template": "{{{id}}} Say: {mr}", "completion": '{{"text": "{ref}"}}'}
    (pair,) = read_pairs(recipe(tmp_path, prompts=prompts)).train.pairs
    assert pair.messages == ({"role": "user", "content": "{7} Say: name[A]"},)
    assert pair.answer == '{"text": "It is A."}'
    assert pair.line == 2


def test_a_value_that_is_no_text_is_written_as_json(tmp_path: Path) -> None:
    row = {"prompt": 3, "completion": {"é": [True, None]}}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row), encoding="utf-8")
    (pair,) = read_pairs(recipe(tmp_path, data={"path": "rows.jsonl"})).train.pairs
    assert pair.messages[0]["content"] == "3"
    assert pair.answer == '{"é": [true, null]}'


def test_the_last_message_is_the_answer(tmp_path: Path) -> None:
    longer = [{"role": "system", "content": "Be brief."}, *CHAT, {"role": "user", "content": "Bye"}, CHAT[-1]]
    first, second = read_pairs(chats(tmp_path, CHAT, longer)).train.pairs
    assert (first.messages, first.answer) == ((CHAT[0],), "Hello.")
    assert [message["role"] for message in second.messages] == ["system", "user", "assistant", "user"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[CHAT[0]]], "line 1: 'messages' is .* at least two messages"),
        ([CHAT, [CHAT[0], CHAT[0]]], "line 2: 'messages' ends with the role 'user'"),
        (
            [[{"role": "tool", "content": "x"}, CHAT[1]]],
            r"messages\[0\]\.role is 'tool'; expected one of: system",
        ),
        ([[{"role": "user", "content": " "}, CHAT[1]]], r"messages\[0\]\.content is ' '; expected a text"),
        ([["Hi", CHAT[1]]], r"messages\[0\] is 'Hi'; expected an object with role and content"),
    ],
)
def test_a_chat_that_cannot_be_learned_is_refused_with_line_and_place(
    tmp_path: Path, rows: list[Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_pairs(chats(tmp_path, *rows))


@pytest.mark.parametrize(
    ("text", "prompts", "message"),
    [
        ("mr,ref\nx,y\n", {"template": "{meaning}"}, "line 1: needs a column 'meaning'; found: 'mr', 'ref'"),
        ("prompt,completion\nx,\n", {}, "line 2: prompts.completion gives an empty text"),
        ("prompt,completion\n", {}, "holds no rows"),
    ],
)
def test_a_row_that_a_template_cannot_use_is_refused_with_line_and_column(
    tmp_path: Path, text: str, prompts: dict[str, str], message: str
) -> None:
    (tmp_path / "rows.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_pairs(recipe(tmp_path, prompts=prompts))


def test_a_missing_value_is_refused_with_its_column(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": null, "completion": "x"}', encoding="utf-8")
    with pytest.raises(DataError, match="line 1: the column 'prompt' is empty"):
        read_pairs(recipe(tmp_path, data={"path": "rows.jsonl"}))


@pytest.mark.parametrize("text", ["{a.b!r}", "{}", "{a:>10}", "{a!s}", "{", "}", "a {b"])
def test_a_template_holds_nothing_but_names_of_columns(tmp_path: Path, text: str) -> None:
    with pytest.raises(RecipeError, match=r"prompts\.template: .*{{ and }}"):
        recipe(tmp_path, prompts={"template": text})


def test_a_name_with_a_dot_or_an_index_is_a_column_and_no_access_to_its_value() -> None:
    template = ColumnTemplate("{a.__class__} {b[0]}")
    assert template.columns == ("a.__class__", "b[0]")
    assert template.fill({"a.__class__": "{x}", "b[0]": "y"}) == "{x} y"


def test_a_template_without_a_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"prompts\.template: 'Hi' names no column"):
        recipe(tmp_path, prompts={"template": "Hi"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"path": "r.csv", "label_column": "l"}}, r"data\.label_column is for SEQ_CLS and TOKEN_CLS"),
        ({"augmentation": {"token_dropout": 0.1}}, r"augmentation\.token_dropout is for SEQ_CLS and TOKEN_CLS"),
        ({"peft": {"method": "head_only"}}, "head_only is for classifiers"),
        (
            {"task_type": "SEQ_CLS", "generation": {"shots": 2}},
            "generation is for CAUSAL_LM and SEQ_2_SEQ_LM; task_type is SEQ_CLS",
        ),
        (
            {"task_type": "SEQ_2_SEQ_LM", "prompts": {"system_prompt": "Be brief."}},
            r"prompts\.system_prompt is for CAUSAL_LM; task_type is SEQ_2_SEQ_LM",
        ),
        (
            {"task_type": "SEQ_2_SEQ_LM", "peft": {"layers_to_transform": [0]}},
            r"peft\.layers_to_transform is for SEQ_CLS and TOKEN_CLS and .* and CAUSAL_LM",
        ),
    ],
)
def test_keys_of_other_tasks_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe(tmp_path, **changes)


def test_files_that_match_a_path_are_read_with_the_names_of_their_folders(tmp_path: Path) -> None:
    for name in ("banking", "travel"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.csv").write_text(f"prompt\nwhat is {name}\n", encoding="utf-8")
    data = {"path": "*/train.csv", "folder_column": "domain"}
    source = recipe(tmp_path, data=data, prompts={"completion": "{domain}"})
    assert [pair.answer for pair in read_pairs(source).train.pairs] == ["banking", "travel"]
    with pytest.raises(DataError, match="'\\*\\*' can only be an entire path component"):
        read_pairs(recipe(tmp_path, data={**data, "path": "a**b/train.csv"}, prompts={"completion": "{domain}"}))
    with pytest.raises(DataError, match="no file matches"):
        read_pairs(recipe(tmp_path, data={**data, "path": "*/none.csv"}))


def test_all_answers_to_a_prompt_are_in_one_part_and_are_its_references(tmp_path: Path) -> None:
    lines = [f"prompt {i},answer {i} {k}" for i in range(40) for k in range(1 + i % 3)]
    (tmp_path / "rows.csv").write_text("\n".join(["prompt,completion", *lines, lines[0]]), encoding="utf-8")
    source = recipe(tmp_path, data={"path": "rows.csv", "splits": {"test_size": 0.25, "val_size": 0.25}})
    parts = split_pairs(read_pairs(source), source.recipe.data.splits)
    assert parts.duplicates == 1
    assert sum(parts.sizes.values()) == len(lines)
    prompts = [{pair.key for pair in part} for part in (parts.train, parts.validation, parts.test)]
    assert list(map(len, prompts)) == [20, 10, 10]
    assert sum(map(len, prompts)) == len(set().union(*prompts))
    for group in grouped(parts.test):
        number = int(str(group.messages[0]["content"]).split()[1])
        assert len(group.references) == 1 + number % 3
    assert parts == split_pairs(read_pairs(source), source.recipe.data.splits)
    assert len(drawn_groups(parts.test, 4, 0)) == 4


def test_a_prompt_of_the_test_file_is_not_trained_on_whatever_its_case(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("prompt,completion\nA b,x\nc,y\nd,z\ne,w\n", encoding="utf-8")
    (tmp_path / "test.csv").write_text("prompt,completion\na  B,x\n", encoding="utf-8")
    splits = {"strategy": "given", "train_rows": 2}
    source = recipe(tmp_path, data={"path": "rows.csv", "test_path": "test.csv", "splits": splits})
    parts = split_pairs(read_pairs(source), source.recipe.data.splits)
    assert "A b" not in {pair.messages[0]["content"] for pair in (*parts.train, *parts.validation)}
    assert parts.sizes == {"train": 2, "validation": 1, "test": 1}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyDecoder:
    return make_decoder("llama", tmp_path_factory.mktemp("llama") / "tiny")


@pytest.mark.parametrize("system", [None, "Be brief."])
def test_a_row_has_the_tokens_of_the_server_s_prompt_then_the_answer_then_its_end(
    tiny: TinyDecoder, system: str | None
) -> None:
    encoder = ChatEncoder(tiny.folder, 2, Prompting(system), "here")
    row = encoder.row(CHAT[:1], "Hello.", "here")
    assert list(row.prompt) == PromptTokenizer(tiny.folder).encode_chat(Chat(CHAT[:1]).with_system(system))
    tokenizer = AutoTokenizer.from_pretrained(tiny.folder)
    whole = [*([] if system is None else [{"role": "system", "content": system}]), *CHAT]
    theirs = tokenizer.apply_chat_template(whole, tokenize=False)
    assert tokenizer.decode([*row.prompt, *row.answer]) == theirs.rstrip("\n")
    assert row.answer[-1] == 2


def test_examples_stand_between_the_system_prompt_and_the_chat(tiny: TinyDecoder, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("prompt,completion\n1,one\n2,two\n", encoding="utf-8")
    shots = read_pairs(recipe(tmp_path)).train.pairs
    text = ChatEncoder(tiny.folder, 2, Prompting("Count."), "here", shots).text(
        ({"role": "user", "content": "3"},), "here"
    )
    turns = [("system", "Count."), ("user", "1"), ("assistant", "one"), ("user", "2"), ("assistant", "two")]
    messages = [{"role": role, "content": content} for role, content in [*turns, ("user", "3")]]
    tokenizer = AutoTokenizer.from_pretrained(tiny.folder)
    assert text == tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def test_a_foundation_without_a_chat_template_is_refused(tiny: TinyDecoder, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((tiny.folder / "tokenizer.json").read_bytes())
    assert ChatTemplate.of(tmp_path) is None
    with pytest.raises(RecipeError, match=r"here: base_model: .* has no chat template"):
        ChatEncoder(tmp_path, 2, Prompting(), "here")


def test_a_row_under_a_template_of_the_recipe_has_the_text_of_transformers(tiny: TinyDecoder) -> None:
    encoder = ChatEncoder(tiny.folder, 2, Prompting("Count.", QWEN_2_5), "here")
    chat = [{"role": "system", "content": "Count."}, *CHAT[:1]]
    expected = AutoTokenizer.from_pretrained(tiny.folder).apply_chat_template(
        chat, chat_template=QWEN_2_5, tokenize=False, add_generation_prompt=True
    )
    assert encoder.text(CHAT[:1], "here") == expected


@pytest.mark.parametrize(("template", "reason"), [("{% if", "not valid"), ("{{ 'a' * 10**9 }}", "of memory")])
def test_a_template_of_the_recipe_that_no_server_would_take_is_refused(
    tiny: TinyDecoder, template: str, reason: str
) -> None:
    with pytest.raises(RecipeError, match=rf"here: prompts.chat_template: it renders no chat .*{reason}"):
        ChatEncoder(tiny.folder, 2, Prompting(None, template), "here")


def test_the_foundation_is_prompted_in_its_own_template(tiny: TinyDecoder, tmp_path: Path) -> None:
    write_rows(tmp_path)
    path = write_generation_recipe(tmp_path, tiny, prompts={"chat_template": "{{ messages[-1].content }}:"})
    job = prepare_generation(load_recipe(path))
    decode = AutoTokenizer.from_pretrained(tiny.folder).decode
    ours, theirs = (decode(parts["test"].rows[0].prompt) for parts in (job.judged, job.prompted))
    assert ours.count(":") == 2
    assert ours.endswith(":")
    assert theirs.startswith("<|im_start|>system\nBe brief.")
    assert job.encoder.text(({"role": "user", "content": "x"},), "here") == "x:"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_data_of_each_recipe_of_the_project_can_be_read_and_split(path: Path) -> None:
    source = load_recipe(path)
    folder = source.resolve(source.recipe.data.path.partition("*")[0])
    if not folder.exists():
        pytest.skip(f"the data is not there: {folder} (ROOTSTOCK_DATA)")
    parts = split_pairs(read_pairs(source), source.recipe.data.splits)
    assert min(parts.sizes.values()) > 20
