"""This trainer against PEFT with transformers' Trainer on one recipe: examples a second, and time to a score."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rootstock.training.data.encoding import TokenRow
from rootstock.training.errors import RecipeError
from rootstock.training.fit.candidate import TrainingRows, train_candidate
from rootstock.training.fit.descent import silent
from rootstock.training.fit.job import Job, prepare
from rootstock.training.metrics.evaluation import macro_f1
from rootstock.training.metrics.intervals import median_interval
from rootstock.training.network.trunk import head_modules, known_warnings, task_model
from rootstock.training.recipe.recipe_file import RecipeFile, changed

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class TrainingTime:
    """One training: its seconds, and the validation score after it."""

    seconds: float
    score: float


@dataclass(frozen=True)
class TrainingComparison:
    """Interleaved trainings by both sides; `examples` is how many rows each of them passes over in all."""

    examples: int
    ours: tuple[TrainingTime, ...]
    peers: tuple[TrainingTime, ...]

    def to_json(self) -> dict[str, Any]:
        """Medians, the ratio of speeds with its 95 % interval, and the scores."""
        ours, peers = ([t.seconds for t in side] for side in (self.ours, self.peers))
        middle, low, high = median_interval([p / o for p, o in zip(peers, ours, strict=True)])
        return {
            "examples": self.examples,
            "ours": {
                "examples_s": self.examples / float(np.median(ours)),
                "seconds": ours,
                "score": _mean(self.ours),
            },
            "trainer": {
                "examples_s": self.examples / float(np.median(peers)),
                "seconds": peers,
                "score": _mean(self.peers),
            },
            "ratio": middle,
            "interval": [low, high],
        }


def _mean(side: tuple[TrainingTime, ...]) -> float:
    return float(np.mean([timed.score for timed in side]))


def compare_trainers(
    source: RecipeFile, pairs: int, told: Callable[[int, int], None] = lambda *_: None
) -> TrainingComparison:
    """Both sides train the recipe's LoRA for its epochs, in turn, `pairs` times, from the same seed.

    Ours counts the states that it computes beforehand; both count no evaluation and no start of the program. The
    peer is a plain script: AutoModel for the task, PEFT, Trainer with its own padding of batches.
    """
    plain = changed(
        source,
        {
            "data.splits.choose_by": "validation",
            "peft.method": "lora",
            "training.contrastive_epochs": 0,
            "training.early_stopping_patience": None,
        },
    )
    job = prepare(plain)
    if not job.rows["validation"]:
        raise RecipeError(
            f"{source.path}: data.splits.k_shot: both sides are scored on validation rows; leave it out"
        )
    epochs = plain.recipe.training.num_train_epochs
    ours: list[TrainingTime] = []
    peers: list[TrainingTime] = []
    for number in range(pairs):
        sides: list[tuple[list[TrainingTime], Callable[[Job], TrainingTime]]] = [(ours, _ours), (peers, _trainer)]
        for side, measure in sides if number % 2 == 0 else reversed(sides):
            side.append(measure(job))
        told(number + 1, pairs)
    return TrainingComparison(len(job.rows["train"]) * epochs, tuple(ours), tuple(peers))


def _ours(job: Job) -> TrainingTime:
    training = TrainingRows(job, job.parts.train, job.rows["train"], (), job.source.recipe.seeds[0], silent)
    start = time.perf_counter()
    candidate = train_candidate("lora", training)
    seconds = time.perf_counter() - start
    return TrainingTime(
        seconds, macro_f1(candidate.predict(job, job.rows["validation"]), job.rows["validation"], job.labels)
    )


def _trainer(job: Job) -> TrainingTime:
    from peft import LoraConfig, get_peft_model
    from transformers import PrinterCallback, Trainer, TrainingArguments, set_seed

    recipe = job.source.recipe
    settings, peft = recipe.training, recipe.peft
    set_seed(recipe.seeds[0])
    start = time.perf_counter()
    named = [job.task_class.prefix + site for site in job.sites]
    config = LoraConfig(
        r=peft.r, lora_alpha=peft.lora_alpha, lora_dropout=peft.lora_dropout, use_rslora=peft.use_rslora,
        target_modules=named, modules_to_save=head_modules(job.task_class),
    )  # fmt: skip
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with known_warnings(), tempfile.TemporaryDirectory(prefix="rootstock-bench-") as folder:
        model: Any = get_peft_model(task_model(job.files, recipe, len(job.labels)), config)
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=settings.num_train_epochs,
            per_device_train_batch_size=settings.per_device_train_batch_size,
            learning_rate=settings.learning_rate,
            warmup_steps=settings.warmup_ratio,
            weight_decay=settings.weight_decay,
            lr_scheduler_type=settings.lr_scheduler_type,
            max_grad_norm=settings.max_grad_norm,
            seed=recipe.seeds[0],
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            use_cpu=job.device.type == "cpu",
        )
        trainer = Trainer(
            model, arguments, train_dataset=_dataset(job.rows["train"]), data_collator=_collate(job)
        )
        # It prints to stdout, which holds the figures alone.
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    seconds = time.perf_counter() - start
    return TrainingTime(seconds, _score(job, model))


def _dataset(rows: list[TokenRow]) -> Any:
    return [
        {
            "input_ids": list(row.ids),
            "token_type_ids": list(row.types),
            "labels": list(row.targets) if row.words else row.targets[0],
        }
        for row in rows
    ]


def _collate(job: Job) -> Callable[[list[Any]], dict[str, torch.Tensor]]:
    """Padding to the longest row of a batch, as DataCollatorWithPadding does it."""
    import torch

    def collate(rows: list[Any]) -> dict[str, torch.Tensor]:
        longest = max(len(row["input_ids"]) for row in rows)

        def padded(key: str, value: int) -> torch.Tensor:
            return torch.tensor([row[key] + [value] * (longest - len(row[key])) for row in rows])

        masks = [{"mask": [1] * len(row["input_ids"])} for row in rows]
        found = {"input_ids": padded("input_ids", job.pad_id)}
        found["attention_mask"] = torch.tensor([m["mask"] + [0] * (longest - len(m["mask"])) for m in masks])
        if "token_type_ids" in job.spec.inputs:
            found["token_type_ids"] = padded("token_type_ids", 0)
        texts = job.source.recipe.task_type == "SEQ_CLS"
        found["labels"] = torch.tensor([row["labels"] for row in rows]) if texts else padded("labels", -100)
        return found

    return collate


def _score(job: Job, model: Any) -> float:
    import torch

    model.eval()
    collate, found = _collate(job), []
    with torch.inference_mode():
        for row in job.rows["validation"]:
            batch = collate(_dataset([row]))
            del batch["labels"]
            found.append(model(**batch).logits[0].cpu().numpy())
    return macro_f1(found, job.rows["validation"], job.labels)
