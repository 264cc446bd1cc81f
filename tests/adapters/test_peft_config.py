"""Which modules an adapter_config.json targets, and each one's rank and scale, are PEFT's own answers."""

from __future__ import annotations

import copy
import dataclasses
import json
import random
import re
import time
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
from peft import LoraConfig, LoraModel, PeftType, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from transformers import AutoModel, AutoModelForSequenceClassification, AutoModelForTokenClassification

from rootstock.adapters.bundle.kinds.methods import CONVERTED, NATIVE, Unconverted
from rootstock.adapters.bundle.kinds.methods import REFUSED as REFUSED_KINDS
from rootstock.adapters.bundle.peft_config import read_config
from rootstock.adapters.bundle.peft_options import (
    CONVERTED_INITS,
    CONVERTED_OPTIONS,
    KNOWN_TO,
    PEFT_VERSION,
    REFUSED_OPTIONS,
)
from rootstock.adapters.foundation.architecture import describe
from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.adapters.spec import FoundationSpec, Rejected
from rootstock.adapters.strict_json.json_member import read_json
from tests.attacks.forge import good_config, tiny_bert

# PEFT warns of patterns that match nothing, which the random configs hold on purpose.
pytestmark = pytest.mark.filterwarnings("ignore:The following .*_pattern keys did not match:RuntimeWarning")

CLASSES = {
    "SEQ_CLS": ("text-classification", AutoModelForSequenceClassification),
    "TOKEN_CLS": ("token-classification", AutoModelForTokenClassification),
    "FEATURE_EXTRACTION": ("feature-extraction", AutoModel),
}
QV = {"target_modules": ["query", "value"]}
CONFIGS: list[dict[str, Any]] = [
    QV,
    {"target_modules": ["query"], "r": 1, "lora_alpha": 3.5},
    {"target_modules": ["query", "dense"]},
    {"target_modules": ["output.dense", "nothing"]},
    {"target_modules": ["self.key"]},
    {"target_modules": ["encoder.layer.1.attention.self.query", "bert.encoder.layer.1.attention.self.query"]},
    {"target_modules": "all-linear"},
    {"target_modules": "ALL-LINEAR", "exclude_modules": ["dense"]},
    {"target_modules": "all-linear", "exclude_modules": ["classifier", "key"]},
    {"target_modules": r".*\.(query|key)"},
    {"target_modules": r"(bert\.)?encoder\.layer\.[02]\..*dense"},
    {"target_modules": r".*self\.q.*", "exclude_modules": r".*layer\.1\..*"},
    {"target_modules": r"(?i).*QUERY"},
    {**QV, "exclude_modules": ["value"]},
    {**QV, "exclude_modules": ["layer.1.attention.self.query", "bert.encoder.layer.0.attention.self.value"]},
    {**QV, "exclude_modules": r".*\.0\..*"},
    {**QV, "exclude_modules": []},
    {**QV, "layers_to_transform": 1},
    {**QV, "layers_to_transform": 0},
    {**QV, "layers_to_transform": [0, 2]},
    {**QV, "layers_to_transform": []},
    {**QV, "layers_to_transform": [1, 7], "layers_pattern": "layer"},
    {**QV, "layers_to_transform": 2, "layers_pattern": ["h", "layer"]},
    {**QV, "layers_to_transform": 2, "layers_pattern": [r"la.er"]},
    {"target_modules": ["query", "pooler.dense"], "layers_to_transform": [1]},
    {"target_modules": ["query", "encoder.layer.0.attention.self.query"], "layers_to_transform": [1]},
    {**QV, "rank_pattern": {"query": 2}},
    {**QV, "rank_pattern": {"layer.1.attention.self.query": 3, "query": 5}, "lora_alpha": 32},
    {**QV, "rank_pattern": {"query": 5, "layer.1.attention.self.query": 3}},
    {**QV, "rank_pattern": {r".*\.[12]\..*": 6, "^bert.encoder.layer.0.attention.self.value": 7}},
    {**QV, "rank_pattern": {"uery": 9}, "alpha_pattern": {"self": 9}},
    {**QV, "alpha_pattern": {"value": 64, r"layer\.0\.attention\.self\.query": 0.5}},
    {**QV, "rank_pattern": {"query": 2}, "alpha_pattern": {"query": 5}, "use_rslora": True},
    {**QV, "use_rslora": True, "r": 6, "lora_alpha": 10},
    {"target_modules": "all-linear", "rank_pattern": {"dense": 2, r"layer\.0\.intermediate\.dense": 3}},
    {"target_modules": ["query", "dense"], "modules_to_save": ["pooler"]},
    {"target_modules": ["query", "dense"], "modules_to_save": ["classifier", "pooler.dense"]},
    {"target_modules": ["query", "dense"], "modules_to_save": [r"layer.1.output"]},
    {"target_modules": ["classifier", "query"]},
    {"target_modules": ["dense"], "lora_dropout": 0.5, "init_lora_weights": "gaussian"},
    {"target_modules": ["dense"], "init_lora_weights": "orthogonal", "r": 4},
    {"target_modules": ["dense"], "init_lora_weights": False, "lora_alpha": 0},
]  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> FoundationFiles:
    return tiny_bert(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def bases(tiny: FoundationFiles) -> dict[str, Any]:
    """The foundation in each task's class, to be copied: PEFT changes the model that it is given."""
    return {name: auto.from_pretrained(tiny.folder) for name, (_, auto) in CLASSES.items()}


@pytest.fixture(scope="module")
def spec(tiny: FoundationFiles) -> FoundationSpec:
    return describe(tiny)


def check_against_peft(base: Any, spec: FoundationSpec, task_type: str, config: dict[str, Any]) -> int:
    """The number of modules that both target; the config that we read is the one that PEFT writes."""
    model = get_peft_model(copy.deepcopy(base), LoraConfig(task_type=task_type, **config))
    theirs = {
        name.removeprefix("base_model.model."): (module.r["default"], module.scaling["default"])
        for name, module in model.named_modules()
        if hasattr(module, "lora_A") and "default" in module.r
    }
    peft_config = model.peft_config["default"]
    written = {k: sorted(v) if isinstance(v, set) else v for k, v in peft_config.to_dict().items()}
    read = read_config(read_json(json.dumps(written).encode(), "adapter_config.json"))
    ours = read.targets(spec.class_for(CLASSES[task_type][0]))
    assert list(ours) == sorted(theirs)
    assert [read.rank(name) for name in ours] == [theirs[name][0] for name in ours]
    assert [read.scale(name) for name in ours] == pytest.approx([theirs[name][1] for name in ours], rel=1e-12)
    return len(ours)


def targets_the_head(config: dict[str, Any]) -> bool:
    target = config["target_modules"]
    named = target.lower() == "all-linear" if isinstance(target, str) else "classifier" in target
    return named and "classifier" not in config.get("exclude_modules", [])


# PEFT itself cannot make a token classifier whose LoRA reaches the head: it saves that head whole.
CASES = [(t, c) for t in CLASSES for c in CONFIGS if t != "TOKEN_CLS" or not targets_the_head(c)]


@pytest.mark.parametrize(("task_type", "config"), CASES, ids=lambda c: json.dumps(c)[:80])
def test_targets_ranks_and_scales_are_peft_s(
    bases: dict[str, Any], spec: FoundationSpec, task_type: str, config: dict[str, Any]
) -> None:
    assert check_against_peft(bases[task_type], spec, task_type, config) > 0


@pytest.mark.parametrize("seed", range(25))
def test_targets_ranks_and_scales_of_random_configs_are_peft_s(
    bases: dict[str, Any], spec: FoundationSpec, seed: int
) -> None:
    draw = random.Random(seed)
    task_type = draw.choice(list(CLASSES))
    names = list(spec.class_for(CLASSES[task_type][0]).linears)

    def suffixes(count: int) -> list[str]:
        chosen = [n.split(".") for n in draw.sample([n for n in names if n != "classifier"], count)]
        return [".".join(parts[-draw.randint(1, len(parts)) :]) for parts in chosen]

    config: dict[str, Any] = {
        "target_modules": [*suffixes(4), "query"],
        "r": draw.randint(1, 9),
        "lora_alpha": draw.choice([1, 7, 16, 2.5]),
        "use_rslora": draw.random() < 0.5,
        "rank_pattern": {s: draw.randint(1, 9) for s in suffixes(3)},
        "alpha_pattern": {s: draw.randint(1, 90) for s in suffixes(3)},
    }
    if draw.random() < 0.5:
        config["exclude_modules"] = [e for e in suffixes(2) if not "query".endswith(e)]
    if draw.random() < 0.5:
        config["layers_to_transform"] = draw.sample(range(3), 2)
        config["layers_pattern"] = draw.choice([None, "layer", ["layer"]])
    assert check_against_peft(bases[task_type], spec, task_type, config) > 0


def test_all_linear_leaves_the_classifier_out_where_no_module_is_saved_whole(
    bases: dict[str, Any], spec: FoundationSpec
) -> None:
    config = LoraConfig(task_type="SEQ_CLS", target_modules="all-linear")
    model = LoraModel(copy.deepcopy(bases["SEQ_CLS"]), config, "default")
    read = read_config(good_config(target_modules="all-linear", modules_to_save=None))
    assert list(read.targets(spec.class_for("text-classification"))) == sorted(model.targeted_module_names)


def test_a_head_alone_targets_nothing(spec: FoundationSpec) -> None:
    read = read_config({"peft_type": None, "task_type": "SEQ_CLS", "target_modules": ["query"]})
    assert read.targets(spec.class_for("text-classification")) == ()


REFUSED: list[tuple[str, Any]] = [
    ("peft_type", "LOHA"), ("peft_type", "PREFIX_TUNING"), ("peft_type", ["LORA"]), ("peft_type", ""),
    ("task_type", 3),
    ("use_dora", "yes"), ("bias", "some"), ("bias", ["all"]), ("lora_bias", 1),
    ("use_qalora", True), ("target_parameters", "weight"), ("target_parameters", [3]),
    ("layer_replication", [[0, 1]]),
    ("alora_invocation_tokens", [1]), ("megatron_config", {"a": 1}),
    ("arrow_config", {"a": 1}),
    ("use_bdlora", 3), ("use_bdlora", {"nblocks": 0}), ("use_bdlora", {"nblocks": True}),
    ("use_bdlora", {"target_modules_bd_a": "query"}), ("use_bdlora", {"target_modules_bd_b": [3]}),
    ("init_lora_weights", "pissa_niter_4"), ("init_lora_weights", "lora_ga"), ("init_lora_weights", {"a": 1}),
    ("init_lora_weights", "corda"), ("init_lora_weights", "loftq"), ("init_lora_weights", ["pissa"]),
    ("target_modules", None), ("target_modules", []), ("target_modules", ""), ("target_modules", 3),
    ("target_modules", ["query", 3]), ("target_modules", {"query": 1}), ("target_modules", ["a"] * 1025),
    ("exclude_modules", 3), ("exclude_modules", [3]), ("modules_to_save", "classifier"), ("modules_to_save", [1]),
    ("modules_to_save", ["("]),
    ("layers_to_transform", "1"), ("layers_to_transform", True), ("layers_to_transform", [1, "2"]),
    ("layers_to_transform", [-1]), ("layers_to_transform", 1.0),
    ("layers_pattern", 3), ("layers_pattern", ["("]), ("layers_pattern", "(?P<idx>a)"),
    ("r", 0), ("r", -1), ("r", True), ("r", 2.0), ("r", "8"), ("r", None),
    ("lora_alpha", "8"), ("lora_alpha", None), ("lora_alpha", True), ("lora_alpha", 10**400),
    ("lora_alpha", float("inf")),
    ("rank_pattern", [1]), ("rank_pattern", {"query": 0}), ("rank_pattern", {"query": "4"}),
    ("rank_pattern", {"(": 4}), ("rank_pattern", {"(?i)query": 4}),
    ("rank_pattern", {f"name{i}": 4 for i in range(1025)}),
    ("alpha_pattern", {"query": None}), ("alpha_pattern", {"a)(b": 4}),
]  # fmt: skip
CATASTROPHIC = [
    "(a+)+$", "(.*)*", "(.+)+x", "(?:.?){30}.{30}x", ".?" * 40 + "zz", r"(\w|.)*zz", r"(.|\w)" * 30 + "zz",
    "(){100000000}x", "((a{50}){50}){50}", ".*" * 12 + "x", r"(.+)\1+x", "(?=(.+)+x).*", "(?:(?:.*,)*)*",
    "a" * 600,
    "(?>.*)*x", ".*+.*+.*+.*+x", "x" * 500 + "{1,99999}" * 3,
]  # fmt: skip


SLOW_TO_COMPILE = [
    "(?i:" + "[\x00-\U0010ffff]" * 99 + ")", "[\x00-\uffff]" * 20, r"[\x00-\uffff]", r"(?i)[^a-\u0130]", "[aé]",
    "é+",
    r"a|(b|(?=[\U00010000-\U0010ffff]))", "(?:[\u0400-\u04ff])?", "(a)?(?(1)é|b)",
]  # fmt: skip
COMPATIBILITY = Path(__file__).parents[2] / "docs" / "compatibility.md"


@pytest.mark.parametrize("kind", NATIVE)
def test_every_option_of_the_installed_peft_is_served_converted_or_refused_by_name_in_the_docs(kind: str) -> None:
    options = {field.name for field in dataclasses.fields(PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(kind)])}
    converted = CONVERTED_OPTIONS.keys() if kind == "LORA" else set()
    assert {*KNOWN_TO[kind]} <= options
    refused = options - KNOWN_TO[kind] - converted
    page = COMPATIBILITY.read_text(encoding="utf-8")
    assert [option for option in sorted(options) if f"`{option}`" not in page] == []
    if kind == "LORA":
        assert refused == set(REFUSED_OPTIONS)
        assert [option for option in sorted(options) if f"\n| `{option}` | " not in page] == []
    for option in refused:
        with pytest.raises(Rejected, match=f"{option}: .*; (train|upload)"):
            read_config({"target_modules": ["query"], "peft_type": kind, option: [1]})
    for option in converted:
        with pytest.raises(Unconverted, match=f"LORA with {option}"):
            read_config({"target_modules": ["query"], "peft_type": kind, option: {"a": 1}})
    assert version(peft.__version__) <= PEFT_VERSION, "read its release notes, then raise PEFT_VERSION"


@pytest.mark.parametrize("kind", NATIVE)
def test_no_option_at_its_default_refuses_an_upload(kind: str) -> None:
    own = {"ADALORA": {"total_step": 10}, "IA3": {"feedforward_modules": []}}.get(kind, {})
    config = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(kind)](target_modules=["query"], **own).to_dict()
    written = json.loads(json.dumps(config, default=list)) | {"peft_type": kind}
    assert read_config(written).foreign == ()


def version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2])


def test_every_kind_of_the_installed_peft_is_served_converted_or_refused_in_the_docs() -> None:
    page = COMPATIBILITY.read_text(encoding="utf-8")
    for kind in PEFT_TYPE_TO_CONFIG_MAPPING:
        assert (kind.value in NATIVE) + (kind.value in CONVERTED) + (kind.value in REFUSED_KINDS) == 1
        assert kind.value in NATIVE or kind.value in page


@pytest.mark.parametrize("key", ["init_lora_weights", "bias"])
def test_every_value_of_an_option_of_the_installed_peft_is_served_or_refused_in_the_docs(key: str) -> None:
    page = COMPATIBILITY.read_text(encoding="utf-8")
    hint = typing.get_type_hints(LoraConfig)[key]
    values = [v for part in (hint, *typing.get_args(hint)) for v in typing.get_args(part) if isinstance(v, str)]
    assert values
    for value in values:
        # What a pattern in PEFT's hint stands for.
        value = re.sub(r"\[.*\]", "4", value)
        try:
            read_config(good_config(**{key: value}))
        except Unconverted:
            assert f"`{value}`" in page
            assert value in CONVERTED_INITS
        except Rejected:
            assert f"`{re.sub('[0-9]+', 'N', value)}`" in page
            assert value in ("pissa_niter_4", "corda", "loftq", "lora_ga")


@pytest.mark.parametrize(("key", "value"), REFUSED, ids=lambda v: str(v)[:40])
def test_an_option_that_is_not_served_is_refused_by_its_key(key: str, value: Any) -> None:
    with pytest.raises(Rejected) as caught:
        read_config(good_config(**{key: value}))
    assert (caught.value.check, caught.value.where) == ("schema", f"adapter_config.json: {key}")


EXPRESSIONS: dict[str, Callable[[str], Any]] = {
    "target_modules": str,
    "exclude_modules": str,
    "layers_pattern": str,
    "modules_to_save": lambda pattern: [pattern],
    "rank_pattern": lambda pattern: {pattern: 4},
    "alpha_pattern": lambda pattern: {pattern: 4},
}


@pytest.mark.parametrize("pattern", CATASTROPHIC + SLOW_TO_COMPILE, ids=lambda p: ascii(p)[:20])
@pytest.mark.parametrize("key", EXPRESSIONS)
def test_a_pattern_that_could_run_or_compile_for_ever_is_refused_quickly(key: str, pattern: str) -> None:
    value = EXPRESSIONS[key](pattern)
    began = time.thread_time()
    with pytest.raises(Rejected) as caught:
        read_config(good_config(**{key: value}))
    assert caught.value.where == f"adapter_config.json: {key}"
    assert time.thread_time() - began < 1


@pytest.mark.parametrize(
    "pattern", [".*.*.*zz", ".?" * 19 + "zz", "(a|b|c|.)" * 9 + "zz", r"(.*\.)?.*.*zz", r"\w+.*\w+z"]
)
def test_the_slowest_patterns_that_are_accepted_match_every_module_quickly(
    spec: FoundationSpec, pattern: str
) -> None:
    task_class = spec.class_for("text-classification")
    read = read_config(good_config(target_modules=pattern))
    began = time.thread_time()
    assert read.targets(task_class) == ()
    assert time.thread_time() - began < 2


@pytest.mark.parametrize("kind", CONVERTED)
def test_a_kind_that_converts_is_held_to_the_same_patterns(kind: str) -> None:
    """In every option in which the installed PEFT may read an expression."""
    options = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(kind)].__dataclass_fields__
    for key in {"target_modules", "exclude_modules", "modules_to_save"} | {o for o in options if "pattern" in o}:
        forms = EXPRESSIONS.get(key, EXPRESSIONS["rank_pattern"])
        with pytest.raises(Unconverted):
            read_config(good_config(peft_type=kind, **{key: forms("query")}))
        for pattern in ("(a+)+$", SLOW_TO_COMPILE[0], "("):
            with pytest.raises(Rejected) as caught:
                read_config(good_config(peft_type=kind, **{key: forms(pattern)}))
            assert caught.value.where == f"adapter_config.json: {key}"


@pytest.mark.parametrize(
    ("patterns", "said"),
    [
        ({f"{i:04}{'x' * 400}": 4 for i in range(400)}, "more than 131072 characters together"),
        ({f"{i:04}" + "(?i:" + "[is]" * 120 + ")": 4 for i in range(20)}, "too many sets"),
        ({f"{i:04}.*.*.*x": 4 for i in range(20)}, "too often"),
    ],
)
def test_patterns_that_are_cheap_alone_are_bounded_together_and_over_all_options(
    patterns: dict[str, int], said: str
) -> None:
    pairs = list(patterns.items())
    half = len(pairs) // 2
    for config in (
        {"rank_pattern": patterns},
        {"rank_pattern": dict(pairs[:half]), "alpha_pattern": dict(pairs[half:])},
    ):
        with pytest.raises(Rejected, match=said):
            read_config(good_config(**config))
    read_config(good_config(rank_pattern=dict(pairs[:5])))


def test_a_thousand_patterns_are_matched_quickly(spec: FoundationSpec) -> None:
    task_class = spec.class_for("text-classification")
    patterns = {f"module{i}{'x' * 40}": 4 for i in range(1000)}
    began = time.thread_time()
    read = read_config(good_config(rank_pattern=patterns, alpha_pattern=dict.fromkeys(patterns, 2)))
    assert {read.scale(name) for name in task_class.linears} == {2.0}
    assert time.thread_time() - began < 10


def test_the_configs_that_peft_saves_for_this_foundation_fit_the_reader(
    tiny: FoundationFiles, tmp_path: Path
) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(tiny.folder)
    get_peft_model(model, LoraConfig(task_type="SEQ_CLS", target_modules="all-linear")).save_pretrained(tmp_path)
    config = read_json((tmp_path / "adapter_config.json").read_bytes(), "adapter_config.json")
    assert read_config(config).values["modules_to_save"] == ["classifier", "score"]
