"""A recipe: the YAML file that says how one adapter is trained. An unknown key is refused."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from adapters.reference import FOUNDATION, is_name
from training.errors import RecipeError

TaskType = Literal["SEQ_CLS", "TOKEN_CLS"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
Dropout = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Modules = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Splits(_Section):
    """How rows are dealt out: `test_size` and `val_size` are shares of all rows, the rest trains."""

    strategy: Literal["stratified"] = "stratified"
    test_size: Share = 0.2
    val_size: Share = 0.15
    seed: Seed = 0

    @field_validator("val_size")
    @classmethod
    def _leaves_rows_to_train(cls, value: float, info: ValidationInfo) -> float:
        if (total := value + info.data.get("test_size", 0)) >= 1:
            raise ValueError(f"test_size and val_size take {total:g} of all rows, which leaves none to train")
        return value


class Data(_Section):
    """Where the labelled rows are: a CSV file for SEQ_CLS, a CoNLL file (token, tab, BIO tag) for TOKEN_CLS."""

    path: str = Field(min_length=1, description="The data file; a relative path starts at the recipe's folder.")
    text_column: str = Field(default="text", description="CSV only: the column that holds the text.")
    label_column: str = Field(default="label", description="CSV only: the column that holds the label.")
    splits: Splits = Splits()


class Peft(_Section):
    """The LoRA update, in peft.LoraConfig's own names."""

    r: Annotated[int, Field(ge=1, le=512)] = 8
    lora_alpha: Positive = 16
    lora_dropout: Dropout = 0.0
    target_modules: Literal["all-linear"] | Modules = Field(
        default=["query", "value"],
        description="Names (or ends of names) of linear modules of the trunk, or all-linear for every one.",
    )
    use_rslora: bool = False


class Training(_Section):
    """The optimisation: AdamW, linear warm-up and decay, the best epoch on validation is kept."""

    learning_rate: Positive = 1e-3
    head_learning_rate: Positive | None = Field(
        default=None, description="For the head; learning_rate where absent."
    )
    num_train_epochs: Count = 10
    per_device_train_batch_size: Count = 16
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.01
    warmup_ratio: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.1
    seed: Seed = 0
    early_stopping_patience: Count | None = Field(
        default=None, description="Stop after this many epochs without a better validation F1; absent: never."
    )
    max_length: Annotated[int, Field(ge=3)] = Field(
        default=128, description="Tokens of an input, special tokens included; the rest is cut off."
    )


class Recipe(_Section):
    """How one adapter is trained, evaluated and packed."""

    task_type: TaskType
    base_model: str = Field(default="default", description="`default`, a local folder, or org/name@<40 hex>.")
    name: str = Field(description="The adapter's name, as it is published.")
    license: str = Field(min_length=1, description="Licence of the adapter, for example cc-by-4.0.")
    description: str = Field(min_length=1, description="What it answers and from what data; goes on its card.")
    data: Data
    peft: Peft = Peft()
    training: Training = Training()
    output_dir: str | None = Field(default=None, description="Where the results go; runs/NAME where absent.")

    @field_validator("name")
    @classmethod
    def _publishable(cls, value: str) -> str:
        if not is_name(value) or value == FOUNDATION:
            raise ValueError(f"{value!r} is no adapter name: 1 to 128 of a-z 0-9 . _ -, not {FOUNDATION!r}")
        return value

    @field_validator("data")
    @classmethod
    def _columns_are_for_csv(cls, value: Data, info: ValidationInfo) -> Data:
        columns = {"text_column", "label_column"} & value.model_fields_set
        if info.data.get("task_type") == "TOKEN_CLS" and columns:
            raise ValueError(f"{min(columns)} is for CSV files; TOKEN_CLS reads a CoNLL file")
        return value


@dataclass(frozen=True)
class RecipeFile:
    """A recipe with the file it was read from, the hash of that file, and its paths resolved."""

    path: Path
    sha256: str
    recipe: Recipe

    @property
    def data_path(self) -> Path:
        return self.path.parent / Path(self.recipe.data.path).expanduser()

    @property
    def output_dir(self) -> Path:
        return Path(self.recipe.output_dir or f"runs/{self.recipe.name}").expanduser()


def load_recipe(path: Path) -> RecipeFile:
    """The recipe in a YAML file; RecipeError with one line that names the file and the key."""
    try:
        raw = path.read_bytes()
        value = yaml.load(raw, Loader=_UniqueKeys)  # noqa: S506 - a subclass of SafeLoader
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(value, dict):
        raise RecipeError(f"{path}: holds {type(value).__name__}; a recipe is a mapping of keys to values")
    try:
        recipe = Recipe.model_validate(value)
    except ValidationError as error:
        raise RecipeError(f"{path}: {_first(error)}") from None
    return RecipeFile(path, "sha256:" + hashlib.sha256(raw).hexdigest(), recipe)


def _first(error: ValidationError) -> str:
    """The first thing that is wrong, in one line, and how many more there are."""
    found = error.errors(include_url=False)
    key = ".".join(str(part) for part in found[0]["loc"])
    message = str(found[0]["msg"]).removeprefix("Value error, ")
    if found[0]["type"] == "extra_forbidden":
        message = f"unknown key; known: {', '.join(_keys_beside(found[0]['loc']))}"
    elif found[0]["type"] != "missing" and found[0]["type"] != "value_error":
        message = f"{found[0]['input']!r}: {message}"
    return f"{key}: {message}" + (f" (and {len(found) - 1} more)" if len(found) > 1 else "")


def _keys_beside(location: tuple[int | str, ...]) -> list[str]:
    section: type[BaseModel] = Recipe
    for part in location[:-1]:
        inner = section.model_fields[str(part)].annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            section = inner
    return list(section.model_fields)


class _UniqueKeys(yaml.SafeLoader):
    """A SafeLoader that refuses a key written twice, of which YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is there twice", node.start_mark
                )
        return super().construct_mapping(node, deep)
