"""The schema of a recipe: the data, training and evaluation of one adapter. An unknown key is an error."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from rootstock.adapters.reference import FOUNDATION, is_name
from rootstock.adapters.spec import GENERATION
from rootstock.adapters.tasks import TASK_OF_TYPE, TaskSpec, task_named
from rootstock.training.recipe.augmentation_section import Augmentation
from rootstock.training.recipe.data_section import Data
from rootstock.training.recipe.fields import (
    Count,
    Modules,
    NotNegative,
    Positive,
    Probability,
    RecipeSection,
    Seed,
    Share,
    Text,
)
from rootstock.training.recipe.generation_section import Generation, Prompts
from rootstock.training.recipe.problem_keys import ProblemType, check_problem
from rootstock.training.recipe.task_keys import check_keys

# PEFT has no name for the tasks of images and audio, so they have the hub's.
TaskType = Literal[
    "SEQ_CLS", "TOKEN_CLS", "CAUSAL_LM", "SEQ_2_SEQ_LM", "image-classification", "audio-classification"
]
# The tasks of classifiers of texts, which have labels.
CLASSIFYING = tuple(TASK_OF_TYPE[task_type] for task_type in ("SEQ_CLS", "TOKEN_CLS"))
Method = Literal["auto", "head_only", "lora", "dora", "ia3"]


class Peft(RecipeSection):
    """The adapter's settings, under PEFT's names.

    `auto` fits a head alone, then trains LoRA, with a contrastive stage for few rows, and keeps the better one.
    """

    method: Method = "auto"
    r: Annotated[int, Field(ge=1, le=512)] = 16
    lora_alpha: Positive = 32.0
    lora_dropout: Probability = 0.0
    target_modules: Literal["all-linear"] | Modules = Field(
        default="all-linear",
        description="Names, or ends of names, of linear modules of the trunk; all-linear for every one.",
    )
    layers_to_transform: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] | None = Field(
        default=None,
        description="Numbers of the layers that change, from 0. Default: all, or the upper half for `auto` on "
        "few rows of texts.",
    )
    use_rslora: bool = False
    choose_strength: bool = Field(
        default=True,
        description="Keep a quarter, half, three quarters or all of LoRA's change: the share of the highest gain "
        "to expect from the rows that judge the method (WiSE-FT).",
    )
    init_from_adapter: Text | None = Field(
        default=None, description="A bundle's folder to start from; its sites and ranks must be the same."
    )

    @property
    def trained_method(self) -> Method:
        """The method to train by: LoRA for `auto`."""
        return "lora" if self.method == "auto" else self.method


class Training(RecipeSection):
    """The optimisation, under the names of transformers' TrainingArguments: AdamW; the best epoch is kept."""

    learning_rate: Positive = 1e-3
    head_learning_rate: Positive | None = Field(
        default=None, description="The head's rate. Default: learning_rate."
    )
    layerwise_lr_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0,
        description="The rate of each layer ÷ that of the layer above (discriminative rates).",
    )
    unfreeze_schedule: Count | None = Field(
        default=None,
        description="Progressive unfreezing: epochs until the next layer down trains. Default: all at once.",
    )
    loraplus_lr_ratio: Positive = Field(default=1.0, description="lora_B's rate ÷ lora_A's (LoRA+).")
    num_train_epochs: Count = 10
    per_device_train_batch_size: Count = 16
    lr_scheduler_type: Literal["linear", "cosine", "constant"] = "linear"
    warmup_ratio: Probability = 0.1
    weight_decay: NotNegative = 0.01
    max_grad_norm: Positive = 1.0
    label_smoothing_factor: Probability = 0.0
    class_weights: Literal["none", "balanced"] = "none"
    dropout: Probability | None = Field(
        default=None,
        description="Dropout in the layers that train and before the head. Default: the foundation's rates.",
    )
    contrastive_epochs: Annotated[int, Field(ge=0)] | None = Field(
        default=None,
        description="Epochs of a supervised contrastive stage before the head is fitted. Default: for few "
        "rows 16, or more if 16 make fewer than 32 steps; else 0.",
    )
    contrastive_weight: NotNegative = Field(
        default=0.0, description="Weight of a supervised contrastive loss beside the cross entropy; 0: none."
    )
    contrastive_temperature: Positive = 0.07
    label_names: bool = Field(
        default=True,
        description="With a contrastive stage, train every head on each label's name as one more row of it.",
    )
    ema_decay: Probability = Field(
        default=0.9,
        description="The contrastive stage ends with a moving average of its weights; this is its decay a step. "
        "The average starts from the initial weights: after 16 steps of 0.9 they are a fifth of it. 0: end with "
        "the last weights.",
    )
    early_stopping_patience: Count | None = Field(
        default=None, description="Stop after this many epochs without a better validation score. Default: never."
    )
    seed: Seed = 0
    seeds: Annotated[list[Seed], Field(min_length=1)] | None = Field(
        default=None,
        description="Train once with each seed and report mean and deviation. Keep the best on validation or, "
        "without validation rows, the first.",
    )
    max_length: Annotated[int, Field(ge=3)] = Field(
        default=128,
        description="Most tokens of an input, special tokens included; the rest is cut off. CAUSAL_LM: of prompt "
        "and answer together; SEQ_2_SEQ_LM: of each of the two; a longer row is left out.",
    )
    cache_features: bool = Field(
        default=True,
        description="Compute the layers below the first one that trains only once for each row, and keep the "
        "result.",
    )
    bf16: bool = Field(default=False, description="Mixed precision in bfloat16.")
    gradient_accumulation_steps: Count = Field(
        default=1,
        description="Generated text: the number of batches whose gradients add up to one step.",
    )
    tokens_per_batch: Count = Field(
        default=4096,
        description="Generated text: most tokens of a batch, padding included; a larger one is computed in "
        "parts, with the same result.",
    )
    gradient_checkpointing: bool = Field(
        default=False,
        description="Generated text: compute activations again in the backward pass instead of keeping them; "
        "less memory, about a third more time.",
    )


class DomainAdaptation(RecipeSection):
    """A loss that brings the embeddings of training rows and unlabelled target rows together; for SEQ_CLS."""

    method: Literal["coral", "dann"]
    target_path: Text = Field(description="Texts of the target domain: a file as for data; labels are not read.")
    weight: Positive = 1.0


class OutOfScope(RecipeSection):
    """Texts that no label fits, to choose and measure the confidence below which answers are refused."""

    val_path: Text | None = None
    test_path: Text


class Evaluation(RecipeSection):
    """Further measurements of a run, beside its score."""

    alpha: Probability = Field(
        default=0.5,
        description="`auto` keeps LoRA if the chance of a loss against the head alone is below half of this. "
        "Generated text: the p-value of the gain has to be below this.",
    )
    learning_curve: list[Share] = Field(
        default=[], description="Shares of the training rows for a learning curve."
    )
    from_scratch: bool = Field(default=False, description="Also train the same network from random weights.")
    out_of_scope: OutOfScope | None = None


class Range(RecipeSection):
    """The values of a key: `choices`, or from `low` to `high`, evenly or on a log scale."""

    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: Annotated[list[Any], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one_form(self) -> Range:
        if (self.choices is None) == (self.low is None or self.high is None):
            raise ValueError("a range needs choices, or low and high; give one of the two")
        if self.choices is None and (self.low or 0) >= (self.high or 0):
            raise ValueError(f"low {self.low} is not below high {self.high}; swap or change them")
        return self


class Hpo(RecipeSection):
    """The search of `rootstock train sweep`: keys of this recipe, such as training.learning_rate."""

    trials: Count = 20
    space: dict[str, Range] = Field(default={})
    seed: Seed = 0


class Tracking(RecipeSection):
    """A record of the run in MLflow, beside its output folder."""

    mlflow_tracking_uri: Text | None = Field(
        default=None, description="An MLflow server or store. Default: none."
    )
    experiment: Text = "rootstock"


class Recipe(RecipeSection):
    """The training, evaluation and packing of one adapter."""

    task_type: TaskType = Field(
        description="SEQ_CLS classifies texts, TOKEN_CLS finds entities, CAUSAL_LM answers chats, SEQ_2_SEQ_LM "
        "rewrites texts, image-classification and audio-classification classify images and recordings."
    )
    problem_type: ProblemType | None = Field(
        default=None,
        description="SEQ_CLS: one label a text, any number of labels, or a number. Default: one label.",
    )
    base_model: str = Field(
        default="default", description="`default`, `chat`, `vision`, a local folder, or org/name@<40 hex>."
    )
    name: str = Field(description="The adapter's name when it is published.")
    license: Text | None = Field(
        default=None,
        description="Licence of the adapter, for example cc-by-4.0. A run needs none; --push needs one.",
    )
    description: Text = Field(description="A sentence on the adapter's answers and data, for its model card.")
    data: Data = Field(
        description="The labelled rows: at least `path`, a .csv, .jsonl, .parquet or .conll file, or the folder "
        "`image_folder` or `audio_folder`."
    )
    peft: Peft = Peft()
    training: Training = Training()
    augmentation: Augmentation = Augmentation()
    domain_adaptation: DomainAdaptation | None = None
    evaluation: Evaluation = Evaluation()
    prompts: Prompts = Prompts()
    generation: Generation = Generation()
    hpo: Hpo = Hpo()
    tracking: Tracking = Tracking()
    save_dtype: Literal["float32", "float16"] = Field(
        default="float32",
        description="Number type of the saved tensors; float16 halves the bundle. The head of a regression stays "
        "float32. The report's figures and the golden outputs are computed from the saved files.",
    )
    output_dir: str | None = Field(default=None, description="The folder of the results. Default: runs/NAME.")

    @field_validator("name")
    @classmethod
    def _publishable(cls, value: str) -> str:
        if not is_name(value) or value == FOUNDATION:
            raise ValueError(
                f"{value!r} is not an adapter name; use 1 to 128 of a-z 0-9 . _ -, and not {FOUNDATION!r}"
            )
        return value

    @model_validator(mode="before")
    @classmethod
    def _encoder_without_examples(cls, value: Any) -> Any:
        """Return the recipe with 0 as the default of generation.shots for SEQ_2_SEQ_LM."""
        if not isinstance(value, dict) or value.get("task_type") != "SEQ_2_SEQ_LM":
            return value
        stated = value.get("generation", {})
        return {**value, "generation": {"shots": 0, **stated}} if isinstance(stated, dict) else value

    @model_validator(mode="after")
    def _fits_the_task(self) -> Recipe:
        check_keys(self, self.task_type)
        check_problem(self, self.problem_type)
        return self

    @property
    def task(self) -> TaskSpec:
        """The task of the adapter."""
        return task_named(TASK_OF_TYPE.get(self.task_type, self.task_type))

    @property
    def generates(self) -> bool:
        """True if the adapter generates text, False if it is a classifier."""
        return self.task.name in GENERATION

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds to train with, at least one."""
        return tuple(self.training.seeds or (self.training.seed,))
