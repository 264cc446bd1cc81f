"""Uploads that attack through the JSON members: each is refused by its check, naming the member or key."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from rootstock.adapters.bundle import PlainFields
from rootstock.adapters.bundle.archive import CONFIG, GOLDEN, MANIFEST
from rootstock.adapters.bundle.manifest import MAX_TOKEN_LABELS, check_labels
from rootstock.adapters.spec import FoundationSpec, HeadSpec, Rejected
from rootstock.adapters.strict_json.canonical import sha256
from tests.attacks.forge import good_config, good_files, plain_files, refused, with_json

LARGE = "1" * (sys.get_int_max_str_digits() + 1)
NOT_JSON = [
    (b"", "not JSON"),
    (b"\x80\x04\x95", "not JSON in UTF-8"),
    (b'{"schema": 1', "not JSON"),
    (b'{"schema": 1} {}', "not JSON"),
    (b'{"schema": 1, "schema": 1}', "the same key twice"),
    (b'{"evaluation": {"a": 1, "a": 2}}', "the same key twice"),
    (b'{"a": NaN}', "NaN is not a JSON number"),
    (b'{"a": -Infinity}', "-Infinity is not a JSON number"),
    (b'{"a": 1e999}', "not JSON compliant"),
    (b'{"a": ' + LARGE.encode() + b"}", "not JSON"),
    (b'{"a": "\\ud800"}', "surrogates not allowed"),
    (b'{"\\udfff": 1}', "surrogates not allowed"),
    (b'{"a": "\xed\xa0\x80"}', "not JSON in UTF-8"),
    (b'\xef\xbb\xbf{"schema": 1}', "not JSON"),
    ('{"schema": 1}'.encode("utf-16"), "not JSON"),
    (b'{"a":' * 40 + b"1" + b"}" * 40, "nested more than 32 deep"),
    (b"[" * 100000, "nested more than 32 deep"),
    (b'{"a":' * 40000, "nested more than 32 deep"),
    (b"[]", "holds list, not an object"),
    (b"null", "holds NoneType, not an object"),
]


@pytest.mark.parametrize(("data", "said"), NOT_JSON)
@pytest.mark.parametrize("member", [CONFIG, MANIFEST, GOLDEN])
def test_what_is_not_one_plain_json_object_is_refused_by_member(
    tiny: FoundationSpec, member: str, data: bytes, said: str
) -> None:
    files = good_files(tiny) | {member: data}
    if member != MANIFEST:
        files = with_json(files, MANIFEST, files={n: sha256(c) for n, c in files.items() if n != MANIFEST})
    refused(files, tiny, "schema", member, said)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("schema", 2, "2; this program reads schema 1"),
        ("schema", None, "None"),
        ("schema", "1", "'1'"),
        ("schema", True, "True"),
        ("schema", [1], "[1]"),
        ("task", "summarization", "'summarization' is not valid; choose one of: text-classification"),
        ("task", "fill-mask", "'fill-mask' is a task of the foundation, not of an adapter"),
        ("task", ["text-classification"], "one of"),
        ("task", None, "None"),
        ("problem_type", None, "None"),
        ("problem_type", "ranking", "'ranking' is not valid; choose one of"),
        ("head", "hf", "not an object"),
        ("head", {"kind": "pickle"}, "'pickle' does not serve text-classification; use 'linear' or 'hf'"),
        ("head", {"kind": ["hf"]}, "use 'linear' or 'hf'"),
        ("head", {"kind": "hf"}, "expected ['class', 'kind']"),
        ("head", {"kind": "hf", "class": 3}, "3 is not a string"),
        ("head", {"kind": "hf", "class": "A", "code": "x.py"}, "code"),
        (
            "head",
            {"kind": "linear", "pooling": "max", "normalize": True},
            "'max' is not valid; choose one of: mean",
        ),
        ("head", {"kind": "linear", "pooling": "mean", "normalize": 1}, "1 is not true or false"),
        ("id2label", {}, "0 labels"),
        ("id2label", ["a", "b"], "not an object"),
        ("id2label", {"0": "a", "2": "b"}, "expected 0 to 1"),
        ("id2label", {"1": "a", "2": "b"}, "expected 0 to 1"),
        ("id2label", {"0": "a", "01": "b"}, "expected 0 to 1"),
        ("id2label", {"0": "a", "-1": "b"}, "expected 0 to 1"),
        ("id2label", {"0": "a", "1": "a"}, "the same label"),
        ("id2label", {"0": "a", "1": 7}, "7 is not a string"),
        ("id2label", {str(i): str(i) for i in range(2**12)}, ""),
        ("id2label", {"0": "a", "1": "b" * 1025}, "a label has 1025 characters and the limit is 1024;"),
        ("preprocessing", {"max_length": 64}, "expected"),
        ("preprocessing", {"max_length": 2, "truncation_side": "right", "prefix": ""}, "2 is not"),
        ("preprocessing", {"max_length": True, "truncation_side": "right", "prefix": ""}, "True is not"),
        ("preprocessing", {"max_length": 64.0, "truncation_side": "right", "prefix": ""}, "64.0 is not"),
        ("preprocessing", {"max_length": 10**30, "truncation_side": "right", "prefix": ""}, ""),
        (
            "preprocessing",
            {"max_length": 64, "truncation_side": "up", "prefix": ""},
            "'up' is not valid; choose one of",
        ),
        ("preprocessing", {"max_length": 64, "truncation_side": "left", "prefix": None}, "None is not"),
        (
            "preprocessing",
            {"max_length": 64, "truncation_side": "left", "prefix": "x" * 4097},
            "has 4097 characters and the limit is 4096;",
        ),
        ("foundation", {"fingerprint": None}, "expected"),
        ("foundation", {"fingerprint": 1, "name": "x", "revision": None}, "1 is not a string"),
        ("targets", "query", "not a list"),
        ("targets", [1], "1 is not a string"),
        ("golden", "none", "'none' does not agree with the members in `files`"),
        ("golden", "../golden.json", "does not agree"),
        ("evaluation", [1], "not an object"),
        ("evaluation", {"n": 2**53}, "9007199254740992 is outside"),
        ("evaluation", {"n": 1e17}, "100000000000000000 is outside"),
        ("provenance", None, "not an object"),
        ("provenance", {"n": -(10**40)}, "is outside"),
        ("license", 3, "3 is not a string"),
        ("files", {CONFIG: None}, "None is not a string"),
        ("files", [], "not an object"),
        ("hooks", {}, "unknown key"),
        ("trust_remote_code", True, "unknown key"),
    ],
)
def test_a_manifest_with_a_wrong_value_is_refused_by_key(
    tiny: FoundationSpec, key: str, value: Any, said: str
) -> None:
    where = "" if said == "" or "is outside" in said else f"bundle.json: {key}"
    check = "labels" if key == "id2label" and said == "" else "schema"
    refused(with_json(good_files(tiny), MANIFEST, **{key: value}), tiny, check, where, said)


def test_a_manifest_without_any_one_key_is_refused_by_that_key(tiny: FoundationSpec) -> None:
    files = good_files(tiny)
    whole = json.loads(files[MANIFEST])
    for key in whole:
        less = json.dumps({k: v for k, v in whole.items() if k != key}).encode()
        refused({**files, MANIFEST: less}, tiny, "schema", key)


@pytest.mark.parametrize(
    ("task", "head", "said"),
    [
        ("token-classification", HeadSpec("linear"), "'linear' does not serve token-classification; use 'hf'"),
        (
            "feature-extraction",
            HeadSpec("hf", "BertModel"),
            "'hf' does not serve feature-extraction; use 'linear'",
        ),
    ],
)
def test_a_head_that_the_task_cannot_use_is_refused(
    tiny: FoundationSpec, task: str, head: HeadSpec, said: str
) -> None:
    labels = () if task == "feature-extraction" else ("a", "b", "c")
    refused(good_files(tiny, task=task, head=head, labels=labels), tiny, "schema", "head.kind", said)


def test_tokens_have_fewer_labels_than_texts_since_each_token_has_a_number_for_each() -> None:
    labels = tuple(str(i) for i in range(MAX_TOKEN_LABELS + 1))
    check_labels(labels, "text-classification")
    check_labels(labels[1:], "token-classification")
    with pytest.raises(Rejected, match="4097 labels; token-classification takes from 1 to 4096"):
        check_labels(labels, "token-classification")


def test_labels_of_an_embedding_are_refused(tiny: FoundationSpec) -> None:
    upload = good_files(tiny, task="feature-extraction", head=HeadSpec("linear"), problem_type=None)
    refused(upload, tiny, "schema", "id2label", "3 labels")


@pytest.mark.parametrize(
    ("golden", "said"),
    [
        ({"inputs": ["a"]}, "expected lists inputs and outputs"),
        ({"inputs": "a", "outputs": "b"}, "expected lists"),
        ({"inputs": ["a"], "outputs": [[1.0]], "more": 1}, "more"),
        ({"inputs": [], "outputs": []}, "0 inputs and 0 outputs"),
        ({"inputs": ["a"] * 17, "outputs": [[1.0]] * 17}, "17 inputs"),
        ({"inputs": ["a", "b"], "outputs": [[1.0]]}, "2 inputs and 1 outputs"),
        ({"inputs": [3], "outputs": [[1.0]]}, "not a string"),
        ({"inputs": [{"text": "a"}], "outputs": [[1.0]]}, "not a string or {text, text_pair}"),
        ({"inputs": [{"text": "a", "text_pair": 1}], "outputs": [[1.0]]}, "not a string"),
        ({"inputs": ["a" * (2**17 + 1)], "outputs": [[1.0]]}, "has 131073 characters and the limit is 131072;"),
        ({"inputs": [{"text": "a" * 2**17, "text_pair": "b"}], "outputs": [[1.0]]}, "has 131073 characters"),
        ({"inputs": ["a"], "outputs": [[[[1.0]]]]}, "shape [1, 1, 1]"),
        ({"inputs": ["a"], "outputs": [1.0]}, "shape []"),
        ({"inputs": ["a"], "outputs": [[]]}, "shape [0]"),
        ({"inputs": ["a"], "outputs": [[[1.0], [1.0, 2.0]]]}, "not a rectangular list of numbers"),
        ({"inputs": ["a"], "outputs": [["1.5"]]}, "not a rectangular list of numbers"),
        ({"inputs": ["a"], "outputs": [[True]]}, "not a rectangular list of numbers"),
        ({"inputs": ["a"], "outputs": [[None]]}, "not a rectangular list of numbers"),
        ({"inputs": ["a"], "outputs": [{"0": 1.0}]}, "not a rectangular list of numbers"),
        ({"inputs": ["a"], "outputs": [[10**300]]}, "a number that fp32 cannot hold"),
        ({"inputs": ["a"], "outputs": [[1e300]]}, "a number that fp32 cannot hold"),
    ],
)
def test_a_golden_set_with_a_wrong_value_is_refused(tiny: FoundationSpec, golden: Any, said: str) -> None:
    files = good_files(tiny) | {GOLDEN: json.dumps(golden).encode()}
    files = with_json(files, MANIFEST, files={n: sha256(c) for n, c in files.items() if n != MANIFEST})
    refused(files, tiny, "schema", "golden.json", said)


def test_a_golden_set_without_a_manifest_is_refused(tiny: FoundationSpec) -> None:
    refused({**plain_files(), GOLDEN: b"{}"}, tiny, "members", GOLDEN, "without bundle.json")


@pytest.mark.parametrize(
    ("plain", "check", "where", "said"),
    [
        (PlainFields(task="summarization"), "schema", "task", "'summarization' is not served"),
        (PlainFields(problem_type="ranking"), "schema", "problem_type", "'ranking' is not valid for text-"),
        (PlainFields(max_length=2), "schema", "max_length", "2 tokens; choose from 3 to 64"),
        (PlainFields(max_length=65), "schema", "max_length", "65 tokens; choose from 3 to 64"),
        (PlainFields(labels=()), "labels", "labels", "0 labels"),
        (PlainFields(labels=("a", "b", "a")), "labels", "labels", "3 labels, 2 distinct"),
        (PlainFields(labels=("a", "b", "\ud800")), "labels", "labels", "surrogate"),
        (PlainFields(labels=("a", "b", "c" * 2**18)), "labels", "labels", "a label has 262144 characters"),
        (PlainFields(labels=tuple(f"{i:x^500}" for i in range(600))), "size", MANIFEST, "the labels make it"),
        (PlainFields(task="feature-extraction", labels=("a",)), "labels", "labels", "takes no labels"),
    ],
)
def test_a_form_field_with_a_wrong_value_is_refused_by_field(
    tiny: FoundationSpec, plain: PlainFields, check: str, where: str, said: str
) -> None:
    refused(plain_files(), tiny, check, where, said, plain=plain)


@pytest.mark.parametrize("plain", [PlainFields(task="text-classification"), PlainFields(labels=("a", "b", "c"))])
def test_a_form_field_beside_a_manifest_is_refused(tiny: FoundationSpec, plain: PlainFields) -> None:
    refused(good_files(tiny), tiny, "schema", plain.given()[0], "plain PEFT folders", plain=plain)


@pytest.mark.parametrize("task_type", ["CAUSAL_LM", "SEQ_2_SEQ_LM"])
def test_a_plain_folder_whose_task_needs_another_foundation_is_refused(
    tiny: FoundationSpec, task_type: str
) -> None:
    upload = plain_files(config=good_config(task_type=task_type))
    refused(upload, tiny, "schema", "task", "is not served on tiny/bert")


@pytest.mark.parametrize("task_type", [None, "SEQ_3_SEQ_LM", "seq_cls", ""])
def test_a_plain_folder_whose_task_nobody_names_is_refused(tiny: FoundationSpec, task_type: str | None) -> None:
    upload = plain_files(config=good_config(task_type=task_type))
    refused(upload, tiny, "schema", "task_type", repr(task_type), "form field `task`")
