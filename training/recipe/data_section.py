"""The section of a recipe about its data: files, columns, and splits."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from rootstock.training.recipe.fields import Count, RecipeSection, Seed, Share, Text


class Splits(RecipeSection):
    """The split of rows into those to train on, to choose by (validation) and to report on (test)."""

    strategy: Literal["stratified", "given"] = Field(
        default="stratified",
        description="`stratified` splits data.path; `given` takes data.test_path and data.val_path.",
    )
    test_size: Share = Field(default=0.2, description="Share of all rows; `stratified` alone.")
    val_size: Share = Field(default=0.15, description="Share of all rows, without a data.val_path.")
    k_shot: Annotated[int, Field(ge=2)] | None = Field(
        default=None,
        description="Train on this many rows of each label, and choose by cross-validation over them; the "
        "validation rows are not used.",
    )
    choose_by: Literal["validation", "cross_validation"] = Field(
        default="validation",
        description="`validation` chooses by the validation rows. `cross_validation` trains on those too, to "
        "the last epoch, and chooses by four folds of all rows. That gives more rows for both, and takes about "
        "four times as long.",
    )
    dedupe_across_splits: bool = Field(
        default=True,
        description="Leave texts of test out of training and validation, and those of validation out of "
        "training.",
    )
    train_rows: Count | None = Field(
        default=None,
        description="Generated text: train on at most this many rows, drawn by the seed. Default: all.",
    )
    seed: Seed = 0

    @field_validator("val_size")
    @classmethod
    def _leaves_rows_to_train(cls, value: float, info: ValidationInfo) -> float:
        if (total := value + info.data.get("test_size", 0)) >= 1:
            raise ValueError(
                f"test_size and val_size add up to {total:g}, which leaves no rows to train on; lower them"
            )
        return value


class Data(RecipeSection):
    """The rows. The extension gives the format: .csv, .jsonl, .parquet, or .conll (token, tab, tag).

    A relative path starts at the recipe's folder; ${ROOTSTOCK_DATA} stands for the folder of labelled data.
    """

    path: Text | None = Field(
        default=None, description="The rows to train on; with `stratified` splits all rows."
    )
    image_folder: Text | None = Field(
        default=None,
        description="Instead of `path`, images in one subfolder for each label; `given` splits: in the folders "
        "train, val and test, with such subfolders each.",
    )
    audio_folder: Text | None = Field(default=None, description="Instead of `path`, recordings in such a folder.")
    path_column: Text | None = Field(
        default=None,
        description="Images and audio in a table: the column of a file's path, from the table's folder.",
    )
    val_path: Text | None = Field(default=None, description="`given` splits: the rows to choose by.")
    test_path: Text | None = Field(default=None, description="`given` splits: the rows to report on.")
    text_column: Text = Field(default="text", description="The column of the text.")
    pair_column: Text | None = Field(default=None, description="The column of a second text, for pairs.")
    label_column: Text = Field(
        default="label", description="The column of the label, the labels, the number, or the list of tags."
    )
    label_separator: Text | None = Field(
        default=None,
        description="multi_label_classification: the text between the labels of a row, such as |. Lists of "
        "labels in .jsonl and .parquet need none.",
    )
    label_columns: Annotated[list[Text], Field(min_length=2)] | None = Field(
        default=None,
        description="multi_label_classification, instead of label_column: one column of 0 and 1 for each label.",
    )
    token_column: Text = Field(default="tokens", description="TOKEN_CLS in .jsonl, .parquet: the list of words.")
    group_column: Text | None = Field(default=None, description="The column of the group, for fairness figures.")
    conflicts: Literal["refuse", "first"] = Field(
        default="refuse",
        description="For a text that occurs twice with two labels: refuse the file, or keep the first.",
    )
    messages_column: Text | None = Field(
        default=None,
        description="CAUSAL_LM in .jsonl, .parquet: the column of chats, lists of messages with role and "
        "content. The last message, the assistant's, is the target. Default: prompts.template makes the prompt.",
    )
    folder_column: Text | None = Field(
        default=None,
        description="Generated text: the name of an additional column, which holds the name of each file's "
        "folder. A path may match several files with *.",
    )
    splits: Splits = Splits()

    @property
    def folder(self) -> str | None:
        """The folder of images or recordings, if the recipe names one."""
        return self.image_folder or self.audio_folder

    @model_validator(mode="after")
    def _one_source(self) -> Data:
        named = [key for key in ("path", "image_folder", "audio_folder") if getattr(self, key) is not None]
        if len(named) > 1:
            raise ValueError(f"{' and '.join(named)} name two sources of rows; keep one of them")
        if not named:
            raise ValueError(
                "path is missing: the rows to train on, a file; or name a folder with image_folder or "
                "audio_folder"
            )
        return self

    @model_validator(mode="after")
    def _paths_fit_the_strategy(self) -> Data:
        given = self.splits.strategy == "given"
        stated = next((key for key in ("test_path", "val_path") if getattr(self, key)), None)
        if self.folder is not None and stated is not None:
            raise ValueError(
                f"{stated} is for rows in files; put the rows into the folders train, val and test of "
                f"{self.folder}, or leave {stated} out"
            )
        if given and self.folder is None and self.test_path is None:
            raise ValueError("splits.strategy: given needs test_path, the rows to report on; add it")
        if not given and stated is not None:
            raise ValueError(
                f"{stated} is for splits.strategy: given, not {self.splits.strategy}; set given, or leave "
                f"{stated} out"
            )
        return self
