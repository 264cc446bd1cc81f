"""A job: everything that a recipe names, read and checked before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from rootstock.adapters.foundation.architecture import describe
from rootstock.adapters.foundation.location import FoundationFiles, locate
from rootstock.adapters.spec import FoundationSpec
from rootstock.training.data.dataset import Dataset, read_dataset, read_texts
from rootstock.training.data.split import Split, split
from rootstock.training.errors import DataError, RecipeError
from rootstock.training.fit.checkpoint import Checkpoints
from rootstock.training.fit.descent import Report, silent
from rootstock.training.fit.plan import FitSettings, TrainingPlan, TrainingRows
from rootstock.training.network.inputs import Inputs, KnownStates
from rootstock.training.network.kept_states import KeptStates
from rootstock.training.network.media.media_encoder import MediaEncoder
from rootstock.training.network.network_spec import InitialAdapter, NetworkSpec
from rootstock.training.network.row_encoder import InputEncoder, RowEncoder
from rootstock.training.network.trunk import sites
from rootstock.training.problems.problem import Problem
from rootstock.training.problems.problem_table import problem_of
from rootstock.training.recipe.problem_keys import REGRESSION
from rootstock.training.recipe.recipe import Peft, Recipe
from rootstock.training.recipe.recipe_file import RecipeFile

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Job:
    """A recipe with its data read and encoded, ready to be trained.

    `rows` are the token rows of train, validation and test. `target` and `out_of_scope` are token rows of texts
    without labels, if the recipe names any.
    """

    dataset: Dataset
    parts: Split
    rows: Mapping[str, list[Any]]
    network: NetworkSpec
    encoder: InputEncoder
    settings: FitSettings
    seeds: tuple[int, ...]
    split_seed: int
    target: list[Any]
    out_of_scope: Mapping[str, list[Any]]

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in id order."""
        return self.dataset.labels

    @property
    def training_rows(self) -> TrainingRows:
        """The rows to train on and to choose by."""
        return TrainingRows(
            self.parts.train, self.rows["train"], self.rows["validation"], split_seed=self.split_seed
        )

    @property
    def joined_rows(self) -> TrainingRows:
        """The rows to train on, with the validation rows among them."""
        return TrainingRows(
            [*self.parts.train, *self.parts.validation],
            [*self.rows["train"], *self.rows["validation"]],
            split_seed=self.split_seed,
            total=len(self.rows["train"]),
        )

    def plan(
        self, report: Report = silent, checkpoints: Checkpoints | None = None, preparing: Report = silent
    ) -> TrainingPlan:
        """Return the plan of a training under the first seed."""
        return TrainingPlan(
            self.network,
            self.encoder,
            self.settings,
            self.seeds[0],
            self.target,
            report,
            checkpoints,
            preparing=preparing,
            known=self._known_states(preparing),
        )

    def _known_states(self, preparing: Report) -> KnownStates | None:
        """Return the states that the trainings of a run share, for texts; `preparing` gets the rows."""
        if not isinstance(self.encoder, RowEncoder):
            return None
        rows = [*self.rows["train"], *self.rows["validation"]]

        def progress(done: int, total: int) -> None:
            preparing(done, total, "all trainings: rows through the frozen layers")

        return KeptStates(rows, self.encoder.pad_id, self.encoder.device, progress).of

    def inputs(self, part: str) -> Inputs:
        """Return the rows of a part ready to be batched."""
        return self.encoder.inputs(self.rows[part])


def prepare(source: RecipeFile) -> Job:
    """Return the job of a recipe. Raise RecipeError, DataError or FoundationError if it cannot be trained."""
    import torch

    recipe, origin = source.recipe, str(source.path)
    dataset = read_dataset(source)
    parts = split(dataset, recipe.data.splits, recipe.data.conflicts)
    if recipe.data.group_column is not None and len({example.group for example in parts.test}) < 2:
        raise DataError(f"{origin}: data.group_column: all test rows have the same group; fairness needs two")
    files = locate(recipe.base_model)
    spec = describe(files)
    if spec.modality != recipe.task.modality:
        raise RecipeError(
            f"{origin}: base_model: {spec.name} reads {spec.modality}, and {recipe.task_type} needs a foundation "
            f"for {recipe.task.modality}; name one"
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    problem = problem_of(recipe.problem_type, dataset.labels)
    encoder = _encoder(recipe, files, spec, problem, device, origin)
    rows = {name: encoder.encode(getattr(parts, name)) for name in parts.sizes}
    # Only recipes for texts name such files.
    unlabelled = {
        key: cast(RowEncoder, encoder).encode_texts(read_texts(source, path, key))
        for key, path in _text_paths(recipe).items()
    }
    settings = FitSettings(recipe.training, recipe.augmentation, recipe.domain_adaptation)
    classes = recipe.task.heads[0] == "linear" and problem.has_classes
    few = settings.contrasts(classes, len(parts.train), len(dataset.labels))
    peft = upper_layers(recipe.peft, spec) if few and spec.modality == "text" else recipe.peft
    network = NetworkSpec(
        files,
        spec,
        recipe.task,
        len(dataset.labels),
        sites(peft, spec, spec.class_for(recipe.task.name), origin),
        peft,
        recipe.training.dropout,
        initial_adapter(recipe.peft, source),
        recipe.save_dtype,
        exact_head=recipe.problem_type == REGRESSION,
    )
    return Job(
        dataset,
        parts,
        rows,
        network,
        encoder,
        settings,
        recipe.seeds,
        recipe.data.splits.seed,
        unlabelled.pop(_TARGET, []),
        {key.rpartition(".")[2]: encoded for key, encoded in unlabelled.items()},
    )


def _encoder(
    recipe: Recipe,
    files: FoundationFiles,
    spec: FoundationSpec,
    problem: Problem,
    device: torch.device,
    origin: str,
) -> InputEncoder:
    """Return the encoder of the foundation's modality."""
    if spec.modality == "text":
        check_length(recipe.training.max_length, spec, origin)
        return RowEncoder.of(files, problem, recipe.training.max_length, device)
    change = recipe.augmentation.image or recipe.augmentation.audio
    return MediaEncoder.of(files, spec, problem.labels, device, change, recipe.seeds[0])


def upper_layers(peft: Peft, spec: FoundationSpec) -> Peft:
    """Return the settings of `auto` for few texts: the upper half of the layers, if the recipe chooses none.

    The lower layers need more rows to change for the better, and a run without them takes half the time.
    """
    chosen = peft.layers_to_transform is not None or peft.target_modules != "all-linear"
    if peft.method != "auto" or chosen or peft.init_from_adapter or not spec.layer_prefix or spec.layers < 2:
        return peft
    return peft.model_copy(update={"layers_to_transform": list(range(spec.layers // 2, spec.layers))})


_TARGET = "domain_adaptation.target_path"


def _text_paths(recipe: Recipe) -> dict[str, str]:
    """Return the files of texts without labels, each under its key in the recipe."""
    paths = {}
    if recipe.domain_adaptation is not None:
        paths[_TARGET] = recipe.domain_adaptation.target_path
    if (settings := recipe.evaluation.out_of_scope) is not None:
        if settings.val_path is not None:
            paths["evaluation.out_of_scope.val_path"] = settings.val_path
        paths["evaluation.out_of_scope.test_path"] = settings.test_path
    return paths


def check_length(max_length: int, spec: FoundationSpec, origin: str) -> None:
    """Raise RecipeError for a limit in tokens above the foundation's."""
    if max_length > spec.max_tokens:
        raise RecipeError(
            f"{origin}: training.max_length: {max_length}; {spec.name} takes {spec.max_tokens} tokens; lower it"
        )


def initial_adapter(peft: Peft, source: RecipeFile) -> InitialAdapter | None:
    """Return the adapter that the recipe starts from, if it names one."""
    if peft.init_from_adapter is None:
        return None
    return InitialAdapter(source.resolve(peft.init_from_adapter), f"{source.path}: peft.init_from_adapter")
