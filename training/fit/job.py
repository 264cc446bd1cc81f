"""What is settled before anything is trained: data, split, foundation, and each part's rows as tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rootstock.adapters.foundation.architecture import describe
from rootstock.adapters.foundation.location import FoundationFiles, locate
from rootstock.adapters.spec import FoundationSpec, TaskClass
from rootstock.training.data.dataset import Dataset, read_dataset, read_texts
from rootstock.training.data.encoding import TokenRow, encode, encode_texts, load_tokenizer, padding
from rootstock.training.data.split import Split, split
from rootstock.training.errors import DataError, RecipeError
from rootstock.training.network.inputs import Inputs
from rootstock.training.network.trunk import TASKS, sites
from rootstock.training.recipe.recipe_file import RecipeFile

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class Job:
    """A recipe with everything it names: `rows` are the tokens of train, validation and test."""

    source: RecipeFile
    dataset: Dataset
    parts: Split
    files: FoundationFiles
    spec: FoundationSpec
    tokenizer: Tokenizer
    rows: dict[str, list[TokenRow]]
    sites: list[str]
    device: torch.device
    pad_id: int
    target: list[TokenRow]

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in id order."""
        return self.dataset.labels

    @property
    def task(self) -> str:
        """The task by its name in a bundle."""
        return TASKS[self.source.recipe.task_type]

    @property
    def task_class(self) -> TaskClass:
        """The foundation's class for the task."""
        return self.spec.class_for(self.task)

    def inputs(self, rows: Sequence[TokenRow]) -> Inputs:
        """Rows ready to be batched."""
        return Inputs(rows, self.pad_id, self.device)

    def encoded(self, texts: Sequence[str]) -> list[TokenRow]:
        """Texts without labels as tokens."""
        return encode_texts(self.tokenizer, texts)


def prepare(source: RecipeFile) -> Job:
    """The job of a recipe; RecipeError, DataError or FoundationError for what cannot be trained."""
    import torch

    recipe = source.recipe
    dataset = read_dataset(source)
    parts = split(dataset, recipe.data.splits, recipe.data.conflicts)
    if recipe.data.group_column is not None and len({example.group for example in parts.test}) < 2:
        raise DataError(f"{source.path}: data.group_column: the test rows have one group; a gap needs two")
    files = locate(recipe.base_model)
    spec = describe(files)
    if recipe.training.max_length > spec.max_tokens:
        raise RecipeError(
            f"{source.path}: training.max_length: {recipe.training.max_length}; {spec.name} takes "
            f"{spec.max_tokens} tokens"
        )
    tokenizer = load_tokenizer(files.folder, recipe.training.max_length)
    found = {name: encode(tokenizer, getattr(parts, name), dataset.labels) for name in parts.sizes}
    target: list[TokenRow] = []
    if recipe.domain_adaptation is not None:
        texts = read_texts(source, recipe.domain_adaptation.target_path, "domain_adaptation.target_path")
        target = encode_texts(tokenizer, texts)
    task_class = spec.class_for(TASKS[recipe.task_type])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pad_id = padding(files)
    return Job(
        source,
        dataset,
        parts,
        files,
        spec,
        tokenizer,
        found,
        sites(source, spec, task_class),
        device,
        pad_id,
        target,
    )
