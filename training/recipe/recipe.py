"""A recipe: what one adapter is trained from, how, and how it is judged. An unknown key is refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from rootstock.adapters.reference import FOUNDATION, is_name

TaskType = Literal["SEQ_CLS", "TOKEN_CLS"]
Method = Literal["auto", "head_only", "lora", "dora", "ia3"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Text = Annotated[str, Field(min_length=1)]
Modules = Annotated[list[Text], Field(min_length=1)]


class RecipeSection(BaseModel):
    """A part of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Splits(RecipeSection):
    """How rows are dealt out to train on, to choose by (validation) and to report on (test)."""

    strategy: Literal["stratified", "given"] = Field(
        default="stratified",
        description="`stratified` deals data.path out; `given` takes data.test_path and data.val_path.",
    )
    test_size: Share = Field(default=0.2, description="Share of all rows; `stratified` alone.")
    val_size: Share = Field(default=0.15, description="Share of all rows, where no data.val_path is given.")
    k_shot: Annotated[int, Field(ge=2)] | None = Field(
        default=None,
        description="Learn from this many rows of each label alone and choose by cross-validation over them; the "
        "validation rows stay unread.",
    )
    choose_by: Literal["validation", "cross_validation"] = Field(
        default="validation",
        description="`validation` chooses by the validation rows; `cross_validation` trains on those too, to the "
        "last epoch, and chooses by four folds of all of them: more rows for both, in about four times the time.",
    )
    dedupe_across_splits: bool = Field(
        default=True, description="Leave out of training what is in test, and of validation what is in either."
    )
    seed: Seed = 0

    @field_validator("val_size")
    @classmethod
    def _leaves_rows_to_train(cls, value: float, info: ValidationInfo) -> float:
        if (total := value + info.data.get("test_size", 0)) >= 1:
            raise ValueError(f"test_size and val_size take {total:g} of all rows, which leaves none to train")
        return value


class Data(RecipeSection):
    """Where the labelled rows are. By the file's ending: .csv, .jsonl, .parquet, or .conll (token, tab, BIO tag).

    A relative path starts at the recipe's folder; ${ROOTSTOCK_DATA} stands for the folder of labelled data.
    """

    path: Text = Field(description="The rows to train on, or with `stratified` splits all rows.")
    val_path: Text | None = Field(default=None, description="`given` splits: the rows to choose by.")
    test_path: Text | None = Field(default=None, description="`given` splits: the rows to report on.")
    text_column: Text = Field(default="text", description="The column of the text.")
    pair_column: Text | None = Field(default=None, description="The column of a second text, for pairs.")
    label_column: Text = Field(default="label", description="The column of the label, or of the list of tags.")
    token_column: Text = Field(default="tokens", description="TOKEN_CLS in .jsonl, .parquet: the list of words.")
    group_column: Text | None = Field(default=None, description="The column of the group, for fairness figures.")
    conflicts: Literal["refuse", "first"] = Field(
        default="refuse",
        description="A text that is there twice, with two labels: refuse the file, or keep the first.",
    )
    splits: Splits = Splits()

    @model_validator(mode="after")
    def _paths_fit_the_strategy(self) -> Data:
        given = self.splits.strategy == "given"
        if given and self.test_path is None:
            raise ValueError("splits.strategy is given: test_path says where the rows to report on are")
        if not given and (self.test_path or self.val_path):
            named = "test_path" if self.test_path else "val_path"
            raise ValueError(f"{named} is for splits.strategy: given; here {self.splits.strategy} deals path out")
        return self


class Peft(RecipeSection):
    """What is grafted on, in PEFT's own names.

    `auto` fits a head alone, then LoRA, for few rows with a contrastive stage, and keeps what wins.
    """

    method: Method = "auto"
    r: Annotated[int, Field(ge=1, le=512)] = 16
    lora_alpha: Positive = 32.0
    lora_dropout: Probability = 0.0
    target_modules: Literal["all-linear"] | Modules = Field(
        default="all-linear",
        description="Names (or ends of names) of linear modules of the trunk, or all-linear for every one.",
    )
    layers_to_transform: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] | None = Field(
        default=None, description="Numbers of the layers that change, from 0; absent: all."
    )
    use_rslora: bool = False
    choose_strength: bool = Field(
        default=False,
        description="Of the trained change keep a quarter, half, three quarters or all, with a head to fit, "
        "whichever is best where the method is judged (WiSE-FT). LoRA alone.",
    )
    init_from_adapter: Text | None = Field(
        default=None, description="A bundle's folder to start from; its sites and ranks have to be these."
    )


class Training(RecipeSection):
    """The optimisation, in the names of transformers' TrainingArguments: AdamW, and the best epoch is kept."""

    learning_rate: Positive = 1e-3
    head_learning_rate: Positive | None = Field(
        default=None, description="For the head; learning_rate where absent."
    )
    layerwise_lr_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0,
        description="Each layer down learns this much slower than the one above (discriminative rates).",
    )
    unfreeze_schedule: Count | None = Field(
        default=None,
        description="Progressive unfreezing: epochs until the next layer down joins; absent: all at once.",
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
        default=None, description="In the layers that train and ahead of the head; absent: the foundation's own."
    )
    contrastive_epochs: Annotated[int, Field(ge=0)] | None = Field(
        default=None,
        description="Epochs of a supervised contrastive stage before the head is fitted; absent: `auto` decides.",
    )
    contrastive_weight: NotNegative = Field(
        default=0.0, description="Of a supervised contrastive loss beside the cross entropy; 0: none."
    )
    contrastive_temperature: Positive = 0.07
    label_names: bool = Field(
        default=True,
        description="Where training is by contrast each label's name is one more row of it, for every head.",
    )
    ema_decay: Probability = Field(
        default=0.9,
        description="The contrastive stage ends with the moving average of its weights, of this decay a step; it "
        "begins with the weights before (after 16 steps of 0.9 a fifth of it). 0: with the last weights.",
    )
    early_stopping_patience: Count | None = Field(
        default=None, description="Stop after this many epochs without a better validation score; absent: never."
    )
    seed: Seed = 0
    seeds: Annotated[list[Seed], Field(min_length=1)] | None = Field(
        default=None,
        description="Train once for each, report mean and deviation, keep the best on validation, or the "
        "first where no rows are left to choose by.",
    )
    max_length: Annotated[int, Field(ge=3)] = Field(
        default=128, description="Tokens of an input, special tokens included; the rest is cut off."
    )
    cache_features: bool = Field(
        default=True, description="Compute the layers below the first that changes once for each row."
    )
    bf16: bool = Field(default=False, description="Mixed precision in bfloat16, on a GPU.")


class Augmentation(RecipeSection):
    """Changes to training rows, new each epoch."""

    mixup_alpha: NotNegative = Field(
        default=0.0, description="Mix pairs of pooled embeddings and their labels, by Beta(α, α); 0: never."
    )
    token_dropout: Probability = Field(default=0.0, description="Share of tokens that attention does not see.")
    word_dropout: Probability = Field(default=0.0, description="Share of words left out of a text.")
    word_swap: Probability = Field(default=0.0, description="Share of words that change places with the next.")


class DomainAdaptation(RecipeSection):
    """Pulls the embeddings of the training rows and of unlabelled target rows together. SEQ_CLS alone."""

    method: Literal["coral", "dann"]
    target_path: Text = Field(description="Texts of the target domain: a file as for data, labels unread.")
    weight: Positive = 1.0


class OutOfScope(RecipeSection):
    """Texts that no label fits, to choose and judge a threshold of refusal by."""

    val_path: Text | None = None
    test_path: Text


class Evaluation(RecipeSection):
    """What is measured beside the score itself."""

    alpha: Probability = Field(
        default=0.5,
        description="`auto`: LoRA is kept where the chance that it only seems better is less than this; 0.5 asks "
        "for more wins than losses.",
    )
    learning_curve: list[Share] = Field(
        default=[], description="Shares of the training rows to train on as well."
    )
    from_scratch: bool = Field(default=False, description="Also train the same network from random weights.")
    out_of_scope: OutOfScope | None = None


class Range(RecipeSection):
    """A hyperparameter's values: `choices`, or from `low` to `high`, evenly or on a log scale."""

    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: Annotated[list[Any], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one_form(self) -> Range:
        if (self.choices is None) == (self.low is None or self.high is None):
            raise ValueError("give choices, or low and high")
        if self.choices is None and (self.low or 0) >= (self.high or 0):
            raise ValueError(f"low {self.low} is not below high {self.high}")
        return self


class Hpo(RecipeSection):
    """What `rootstock train sweep` searches: keys of this recipe, such as training.learning_rate."""

    trials: Count = 20
    space: dict[str, Range] = {}
    seed: Seed = 0


class Tracking(RecipeSection):
    """Where a run is recorded beside its output folder."""

    mlflow_tracking_uri: Text | None = Field(default=None, description="An MLflow server or store; absent: none.")
    experiment: Text = "rootstock"


class Recipe(RecipeSection):
    """How one adapter is trained, evaluated and packed."""

    task_type: TaskType
    base_model: str = Field(default="default", description="`default`, a local folder, or org/name@<40 hex>.")
    name: str = Field(description="The adapter's name, as it is published.")
    license: Text = Field(description="Licence of the adapter, for example cc-by-4.0.")
    description: Text = Field(description="What it answers and from what data; goes on its card.")
    data: Data
    peft: Peft = Peft()
    training: Training = Training()
    augmentation: Augmentation = Augmentation()
    domain_adaptation: DomainAdaptation | None = None
    evaluation: Evaluation = Evaluation()
    hpo: Hpo = Hpo()
    tracking: Tracking = Tracking()
    output_dir: str | None = Field(default=None, description="Where the results go; runs/NAME where absent.")

    @field_validator("name")
    @classmethod
    def _publishable(cls, value: str) -> str:
        if not is_name(value) or value == FOUNDATION:
            raise ValueError(f"{value!r} is no adapter name: 1 to 128 of a-z 0-9 . _ -, not {FOUNDATION!r}")
        return value

    @model_validator(mode="after")
    def _fits_the_task(self) -> Recipe:
        if self.task_type == "SEQ_CLS":
            return self
        for section, key in (
            ("data", "text_column"), ("data", "pair_column"), ("augmentation", "mixup_alpha"),
            ("augmentation", "word_dropout"), ("augmentation", "word_swap"), ("evaluation", "out_of_scope"),
        ):  # fmt: skip
            if key in getattr(self, section).model_fields_set:
                raise ValueError(f"{section}.{key} is for SEQ_CLS; task_type is {self.task_type}")
        if self.domain_adaptation is not None:
            raise ValueError(f"domain_adaptation is for SEQ_CLS; task_type is {self.task_type}")
        if self.training.contrastive_epochs:
            raise ValueError(f"training.contrastive_epochs is for SEQ_CLS; task_type is {self.task_type}")
        return self

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds to train with, at least one."""
        return tuple(self.training.seeds or (self.training.seed,))
