"""Compares this trainer with PEFT and transformers' Trainer on one recipe: examples a second, and the score."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from rootstock.training.data.dataset import require_texts
from rootstock.training.data.encoding import EncodedRow
from rootstock.training.errors import RecipeError
from rootstock.training.fit.candidate import train_candidate
from rootstock.training.fit.job import prepare
from rootstock.training.fit.plan import TrainingPlan, TrainingRows
from rootstock.training.metrics.evaluation import macro_f1
from rootstock.training.metrics.intervals import order_statistic_interval
from rootstock.training.network.row_encoder import RowEncoder
from rootstock.training.network.trunk import head_modules, known_warnings, task_model
from rootstock.training.recipe.recipe_file import RecipeFile, changed

if TYPE_CHECKING:
    import torch

Measure = Callable[[TrainingRows, TrainingPlan], "TrainingTime"]
Collate = Callable[[list[Any]], "dict[str, torch.Tensor]"]


@dataclass(frozen=True)
class TrainingTime:
    """One training: its seconds, and the validation score after it."""

    seconds: float
    score: float


@dataclass(frozen=True)
class TrainingComparison:
    """Interleaved trainings by both sides, each of which passes over `examples` rows in all."""

    examples: int
    ours: tuple[TrainingTime, ...]
    peers: tuple[TrainingTime, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the scores, medians, and the ratio of speeds with its interval and the interval's coverage."""
        ours, peers = ([t.seconds for t in side] for side in (self.ours, self.peers))
        ratio = order_statistic_interval([p / o for p, o in zip(peers, ours, strict=True)])
        return {
            "examples": self.examples,
            "ours": self._side(self.ours, ours),
            "trainer": self._side(self.peers, peers),
            "ratio": ratio.median,
            "interval": [ratio.low, ratio.high],
            "coverage": ratio.coverage,
        }

    def _side(self, side: tuple[TrainingTime, ...], seconds: list[float]) -> dict[str, Any]:
        score = float(np.mean([training.score for training in side]))
        return {"examples_s": self.examples / float(np.median(seconds)), "seconds": seconds, "score": score}


def compare_trainers(
    source: RecipeFile, pairs: int, observe: Callable[[int, int], None] = lambda *_: None
) -> TrainingComparison:
    """Train the recipe's LoRA for its epochs by both sides in turn, `pairs` times, from the same seed.

    Our time includes the states computed beforehand. Neither side's time includes an evaluation or the start of
    the program. The peer is a plain script: AutoModel for the task, PEFT, Trainer with its own padding of
    batches.
    """
    require_texts(source)
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
    rows, plan = job.training_rows, job.plan()
    if not rows.validation:
        raise RecipeError(
            f"{source.path}: data.splits.k_shot: both sides are scored on validation rows; leave it out"
        )
    ours: list[TrainingTime] = []
    peers: list[TrainingTime] = []
    for number in range(pairs):
        sides: list[tuple[list[TrainingTime], Measure]] = [(ours, _ours), (peers, _trainer)]
        for side, measure in sides if number % 2 == 0 else reversed(sides):
            side.append(measure(rows, plan))
        observe(number + 1, pairs)
    return TrainingComparison(
        len(rows.train) * plan.settings.training.num_train_epochs, tuple(ours), tuple(peers)
    )


def _ours(rows: TrainingRows, plan: TrainingPlan) -> TrainingTime:
    unjudged = TrainingRows(rows.examples, rows.train, split_seed=rows.split_seed)
    start = time.perf_counter()
    candidate = train_candidate("lora", unjudged, plan)
    seconds = time.perf_counter() - start
    outputs = candidate.predict(plan.encoder.inputs(rows.validation))
    return TrainingTime(seconds, macro_f1(outputs, rows.validation, plan.encoder.labels))


def _trainer(rows: TrainingRows, plan: TrainingPlan) -> TrainingTime:
    from peft import LoraConfig, get_peft_model
    from transformers import PrinterCallback, Trainer, set_seed

    network, peft = plan.network, plan.network.peft
    set_seed(plan.seed)
    start = time.perf_counter()
    config = LoraConfig(
        r=peft.r, lora_alpha=peft.lora_alpha, lora_dropout=peft.lora_dropout, use_rslora=peft.use_rslora,
        target_modules=network.modules, modules_to_save=head_modules(network.task_class),
    )  # fmt: skip
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    collate = _collate(plan)
    with known_warnings(), tempfile.TemporaryDirectory(prefix="rootstock-bench-") as folder:
        model: Any = get_peft_model(task_model(network), config)
        trainer = Trainer(
            model, _arguments(plan, folder), train_dataset=_dataset(rows.train), data_collator=collate
        )
        # The callback prints to stdout, which is for figures alone.
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    seconds = time.perf_counter() - start
    return TrainingTime(seconds, _score(model, rows.validation, plan.encoder.labels, collate))


def _arguments(plan: TrainingPlan, folder: str) -> Any:
    from transformers import TrainingArguments

    settings = plan.settings.training
    return TrainingArguments(
        output_dir=folder,
        num_train_epochs=settings.num_train_epochs,
        per_device_train_batch_size=settings.per_device_train_batch_size,
        learning_rate=settings.learning_rate,
        warmup_steps=settings.warmup_ratio,
        weight_decay=settings.weight_decay,
        lr_scheduler_type=settings.lr_scheduler_type,
        max_grad_norm=settings.max_grad_norm,
        seed=plan.seed,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        use_cpu=plan.encoder.device.type == "cpu",
    )


def _dataset(rows: Sequence[Any]) -> Any:
    return [
        {
            "input_ids": list(row.ids),
            "token_type_ids": list(row.types),
            "labels": list(row.targets) if row.words else row.targets[0],
        }
        for row in rows
    ]


def _collate(plan: TrainingPlan) -> Collate:
    """Return the function that pads rows to the longest of a batch, as DataCollatorWithPadding does."""
    import torch

    pad_id, texts = cast(RowEncoder, plan.encoder).pad_id, plan.network.linear_head
    types = "token_type_ids" in plan.network.foundation.inputs

    def collate(rows: list[Any]) -> dict[str, torch.Tensor]:
        longest = max(len(row["input_ids"]) for row in rows)

        def padded(key: str, value: int) -> torch.Tensor:
            return torch.tensor([row[key] + [value] * (longest - len(row[key])) for row in rows])

        batch = {"input_ids": padded("input_ids", pad_id)}
        lengths = torch.tensor([len(row["input_ids"]) for row in rows])
        batch["attention_mask"] = (torch.arange(longest) < lengths[:, None]).long()
        if types:
            batch["token_type_ids"] = padded("token_type_ids", 0)
        batch["labels"] = torch.tensor([row["labels"] for row in rows]) if texts else padded("labels", -100)
        return batch

    return collate


def _score(model: Any, rows: Sequence[EncodedRow], labels: Sequence[str], collate: Collate) -> float:
    import torch

    model.eval()
    outputs = []
    with torch.inference_mode():
        for row in rows:
            batch = collate(_dataset([row]))
            del batch["labels"]
            outputs.append(model(**batch).logits[0].cpu().numpy())
    return macro_f1(outputs, rows, labels)
