"""Recipes: what is refused, and that the refusal names the file and the key in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rootstock.training.cli.app import app
from rootstock.training.data.dataset import read_dataset
from rootstock.training.data.split import split
from rootstock.training.errors import RecipeError
from rootstock.training.recipe.recipe_file import load_recipe

RECIPES = sorted((Path(__file__).parents[2] / "training" / "recipes").glob("*.yaml"))
MEDIA_RECIPES = sorted((Path(__file__).parents[2] / "training" / "recipes").glob("[ia]*/*.yaml"))
VALID = "task_type: SEQ_CLS\nname: a\nlicense: b\ndata: {path: c.csv}\n"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"peft": {"rank": 8}}, "peft.rank: unknown key; known: method, r, lora_alpha,"),
        ({"extra": 1}, "extra: unknown key"),
        ({"data": {"splits": {"stratgy": "stratified"}}}, "data.splits.stratgy: unknown key; known: strategy"),
        ({"task_type": "QA"}, "task_type: 'QA'"),
        ({"name": "Has Spaces"}, "name: 'Has Spaces' is not an adapter name"),
        ({"name": "foundation"}, "name: 'foundation' is not an adapter name"),
        ({"description": None}, "description: this key is missing: a sentence on the adapter's answers and data"),
        ({"peft": {"r": 0}}, "peft.r: 0"),
        ({"peft": {"target_modules": []}}, "peft.target_modules"),
        ({"training": {"learning_rate": float("nan")}}, "training.learning_rate: nan"),
        ({"training": {"num_train_epochs": 0}}, "training.num_train_epochs: 0"),
        (
            {"data": {"splits": {"test_size": 0.6, "val_size": 0.4}}},
            "data.splits.val_size: test_size and val_size",
        ),
        (
            {"task_type": "TOKEN_CLS", "data": {"text_column": "t"}},
            "data.text_column is for SEQ_CLS; task_type is TOKEN_CLS",
        ),
        ({"data": {"test_path": "t.csv"}}, "data: test_path is for splits.strategy: given"),
        ({"data": {"splits": {"strategy": "given"}}}, "data: splits.strategy: given needs test_path"),
        ({"hpo": {"space": {"training.seed": {"low": 1}}}}, "hpo.space.training.seed: a range needs choices"),
    ],
)
def test_a_wrong_key_or_value_is_refused_in_one_line_with_file_and_key_and_exit_code_2(
    write_recipe: Callable[..., Path], changes: dict[str, Any], named: str
) -> None:
    path = write_recipe(**changes)
    result = CliRunner().invoke(app, ["validate", str(path)])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(f"rootstock train: {path}: {named}")
    assert result.stderr.count("\n") == 1


def test_all_missing_and_wrong_keys_are_named_at_once_and_the_missing_ones_explained(tmp_path: Path) -> None:
    path = tmp_path / "short.yaml"
    path.write_text("data: {test_path: a.csv}\npeft: {r: 0}\n", encoding="utf-8")
    result = CliRunner().invoke(app, ["validate", str(path)])
    assert result.exit_code == 2
    first, *lines = result.stderr.splitlines()
    assert first == f"rootstock train: {path}: 5 keys are missing or wrong"
    by_key = dict(line.strip().split(": ", 1) for line in lines)
    assert list(by_key) == ["task_type", "name", "description", "data", "peft.r"]
    assert by_key["name"] == "this key is missing: the adapter's name when it is published"
    assert by_key["task_type"].startswith("this key is missing: SEQ_CLS classifies texts")
    assert by_key["data"].startswith("path is missing: the rows to train on")
    assert by_key["peft.r"].startswith("0: Input should be greater than")


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_a_recipe_without_a_licence_is_only_refused_where_it_would_be_published(
    write_recipe: Callable[..., Path], rows: Path, dry: tuple[str, ...]
) -> None:
    path = write_recipe(license=None)
    assert CliRunner().invoke(app, ["validate", str(path)]).exit_code == 0
    refused = CliRunner().invoke(app, ["run", str(path), "--push", "http://127.0.0.1:1", *dry])
    assert refused.exit_code == 2
    assert "license: this key is missing, and --push publishes the adapter" in refused.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [unclosed", "not YAML"),
        ("name: a\nname: b\n", "key 'name' occurs twice"),
        ("- a\n- b\n", "holds list; a recipe is a mapping"),
        ("", "holds NoneType"),
        ("when: !!python/object:os.system {}", "not YAML"),
        ("when: 2026-99-99", "not YAML: month must be in 1..12"),
        ("when: !!int x", "not YAML: invalid literal"),
        ("when: !!bool x", "not YAML"),
        ("when: !!timestamp x", "not YAML"),
        ("[" * 1000, "not YAML: nested too deep"),
        ("when: \0", "not YAML"),
        (f'{VALID}description: d\noutput_dir: "\\ud800"\n', r"\\ud800 is half of a character"),
        (f"name: {'9' * 5000}", "not YAML: Exceeds the limit"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused_with_its_name(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=message) as refused:
        load_recipe(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert "\n" not in str(refused.value)


def test_a_home_folder_of_nobody_is_refused_with_the_path(write_recipe: Callable[..., Path]) -> None:
    source = load_recipe(write_recipe(data={"path": "~no-such-user/rows.csv"}, output_dir="~no-such-user/runs"))
    with pytest.raises(RecipeError, match=r"~no-such-user/rows\.csv: unknown user after ~; write the full path"):
        source.resolve(source.recipe.data.path)
    with pytest.raises(RecipeError, match="~no-such-user/runs: unknown user after ~"):
        _ = source.output_dir


def test_a_missing_recipe_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["run", str(tmp_path / "none.yaml")])
    assert result.exit_code == 2
    assert (
        result.stderr == f"rootstock train: {tmp_path / 'none.yaml'}: cannot be read: No such file or directory\n"
    )


def test_a_relative_data_path_starts_at_the_recipes_folder(
    write_recipe: Callable[..., Path], rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    source = load_recipe(write_recipe())
    assert source.resolve(source.recipe.data.path) == rows


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_each_recipe_of_the_project_is_valid_on_its_data(path: Path) -> None:
    source = load_recipe(path)
    if not source.resolve(source.recipe.data.path).exists():
        pytest.skip(f"the labelled data is not there: {source.resolve(source.recipe.data.path)} (ROOTSTOCK_DATA)")
    result = CliRunner().invoke(app, ["validate", str(path)])
    assert result.exit_code == 0, result.stderr
    assert "valid" in result.stdout


@pytest.mark.parametrize("path", MEDIA_RECIPES, ids=lambda p: p.stem)
def test_each_recipe_for_images_and_audio_is_valid_on_its_data(path: Path) -> None:
    source = load_recipe(path)
    folder = source.resolve(source.recipe.data.folder)
    if not folder.exists():
        pytest.skip(f"the labelled data is not there: {folder} (ROOTSTOCK_DATA)")
    parts = split(read_dataset(source), source.recipe.data.splits)
    assert min(parts.sizes["train"], parts.sizes["test"]) >= 200


def test_the_schema_command_prints_a_json_schema_that_refuses_unknown_keys() -> None:
    result = CliRunner().invoke(app, ["schema"])
    schema = json.loads(result.stdout)
    assert schema["additionalProperties"] is False
    assert set(schema["required"]) == {"task_type", "name", "description", "data"}
    assert schema["$defs"]["Peft"]["properties"]["r"]["default"] == 16


def test_importing_the_commands_imports_neither_torch_nor_transformers() -> None:
    import subprocess
    import sys

    heavy = ("torch", "transformers", "peft")
    code = f"import sys, rootstock.training.cli.app\nprint([name for name in {heavy} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_the_recipe_that_a_run_for_tokens_leaves_can_be_read_again(tokens_recipe: Path, tmp_path: Path) -> None:
    source = load_recipe(tokens_recipe)
    again = tmp_path / "again.yaml"
    again.write_text(source.to_yaml(), encoding="utf-8")
    assert load_recipe(again).sha256 == source.sha256
