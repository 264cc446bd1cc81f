"""Metrics as a trainer fills them, of answers drawn at random."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix

from rootstock.training.metrics.calibration import calibrate
from rootstock.training.metrics.evaluation import label_figures
from rootstock.training.metrics.intervals import label_intervals
from rootstock.training.metrics.paired_test import mcnemar

LABELS = [
    "calendar_update",
    "todo_list",
    "next_song",
    "reminder_update",
    "shopping_list_update",
    "smart_home",
    "what_song",
    "update_playlist",
    "calendar",
    "order",
    "todo_list_update",
    "reminder",
    "play_music",
    "shopping_list",
    "order_status_of_a_delivery_that_is_late",
]


def _answers(rows: int, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    truth = np.tile(np.arange(15), rows // 15)
    logits = draw.normal(0, 1, (rows, 15))
    logits[np.arange(rows), truth] += noise
    return truth, 2 * logits


def example_metrics() -> dict[str, Any]:
    """All sections of a text classifier's metrics."""
    truth, logits = _answers(450, 3.6, 0)
    _, head = _answers(450, 3.0, 1)
    predicted, by_head = logits.argmax(1), head.argmax(1)
    figures = {
        name: label_figures(truth.tolist(), answers.tolist(), LABELS)
        for name, answers in (
            ("adapter", predicted),
            ("head_only", by_head),
            ("majority", np.zeros_like(truth)),
            ("from_scratch", _answers(450, 2.0, 2)[1].argmax(1)),
        )
    }
    against = mcnemar(by_head == truth, predicted == truth).to_json()
    validation_truth, validation = _answers(300, 3.6, 3)
    candidates = [
        {"method": "head_only", "validation": 0.951},
        {
            "method": "lora",
            "validation": 0.966,
            "against": "head_only",
            "wins": 9,
            "losses": 4,
            "p_value": 0.088,
            "test": against["test"],
        },
        {
            "method": "contrastive",
            "validation": 0.981,
            "against": "head_only",
            "wins": 12,
            "losses": 2,
            "p_value": 0.0037,
            "test": against["test"],
        },
    ]
    return {
        "name": "clinc150-home",
        "digest": "sha256:" + "5ac1" * 16,
        "task": "text-classification",
        "method": "contrastive",
        "labels": LABELS,
        "rows": {"train": 1500, "validation": 300, "test": 450},
        "test": {
            "split": "test",
            "adapter": figures.pop("adapter"),
            "baselines": figures,
            "intervals": label_intervals(truth.tolist(), predicted.tolist(), 15),
            "confusion": confusion_matrix(truth, predicted).tolist(),
            "comparison": {"head_only": against},
        },
        "choice": {
            "chosen": "contrastive",
            "reason": "the best on validation, and better than head_only",
            "candidates": candidates,
        },
        "epochs": [
            {
                "number": i + 1,
                "loss": 2.6 * 0.6**i + 0.05,
                "validation_loss": 2.4 * 0.6**i + 0.2 + 0.01 * i,
                "validation_f1": 0.98 - 0.5 * 0.5**i - 0.002 * i,
            }
            for i in range(10)
        ],
        "seeds": {
            "validation": [0.981, 0.977, 0.984],
            "test": [0.978, 0.969, 0.975],
            "mean": 0.974,
            "sd": 0.0046,
        },
        "learning_curve": [
            {"rows": n, "score": s} for n, s in ((120, 0.89), (375, 0.94), (750, 0.962), (1500, 0.981))
        ],
        "mistakes": {
            "count": 60,
            "of": 450,
            "rows": [
                {
                    "line": 7,
                    "text": "play it | again",
                    "true": "next_song",
                    "predicted": "play_music",
                    "score": 0.98,
                }
            ],
        },
        "calibration": calibrate(2.5 * validation, validation_truth, 2.5 * logits, truth),
        "out_of_scope": {
            "threshold": 0.71,
            "in_scope_kept": 0.956,
            "in_scope_accuracy": 0.941,
            "recall": 0.883,
            "auroc": 0.964,
            "rows": {"in_scope": 450, "out_of_scope": 1000},
        },
        "fairness": {
            "column": "dialect",
            "groups": {
                "north": {"rows": 200, "accuracy": 0.985, "macro_f1": 0.984},
                "south": {"rows": 250, "accuracy": 0.952, "macro_f1": 0.95},
            },
            "gap": 0.033,
            "foundation_gap": 0.03,
            "verdict": "inherited",
        },
        "cost": {
            "seconds": 142.7,
            "peak_memory_mb": 912.4,
            "trainable_parameters": 1345679,
            "device": "cpu, 2 threads",
        },
        "provenance": {
            "data": {"sha256": "9f" * 32, "rows": 2250},
            "recipe": {"sha256": "31" * 32},
            "seeds": [0, 1, 2],
            "libraries": {"torch": "2.13.0", "peft": "0.21.2"},
            "commit": "41cc5a7",
        },
    }


def example_entity_metrics() -> dict[str, Any]:
    """The least that a tagger's metrics hold, and its head-only baseline."""
    rates = {"precision": 0.55, "recall": 0.42, "f1": 0.476, "support": 400}
    head = {"precision": 0.5, "recall": 0.3, "f1": 0.375, "support": 400}
    return {
        "name": "wnut17",
        "task": "token-classification",
        "labels": ["O", "B-person", "I-person", "B-creative-work", "I-creative-work"],
        "rows": {"train": 3394, "validation": 1009, "test": 1287},
        "test": {
            "split": "test",
            "adapter": {
                "rows": 1287,
                **rates,
                "entities": {"person": rates, "creative-work": {**rates, "f1": 0.2}},
            },
            "baselines": {
                "head_only": {"rows": 1287, **head, "entities": {"person": head, "creative-work": head}}
            },
            "intervals": {"f1": [0.44, 0.51]},
        },
    }
