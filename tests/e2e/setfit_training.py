"""Trains a SetFit model with SetFit itself: python setfit_training.py BODY ROWS.json FOLDER KIND.

ROWS.json holds `train`, `labels` and `test`. KIND is `frozen`, `tuned` or `torch`: a head alone on the frozen
body, a tuned body, or a head of torch. The probabilities of the test texts go to FOLDER/expected.npy.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from datasets import Dataset
from setfit import SetFitModel, Trainer, TrainingArguments

body, kind = sys.argv[1], sys.argv[4]
folder, rows = Path(sys.argv[3]), json.loads(Path(sys.argv[2]).read_text())
names = sorted(set(rows["labels"]))
head = {"use_differentiable_head": True, "head_params": {"out_features": len(names)}} if kind == "torch" else {}
model = SetFitModel.from_pretrained(body, labels=names, device="cpu", **head)
numbers = [names.index(label) for label in rows["labels"]]
if kind == "tuned":
    data = Dataset.from_dict({"text": rows["train"], "label": numbers})
    arguments = TrainingArguments(batch_size=16, max_steps=60, report_to="none", output_dir=str(folder))
    Trainer(model=model, args=arguments, train_dataset=data).train()
else:
    # These are for a head of torch.
    options = {"num_epochs": 5, "batch_size": 16, "head_learning_rate": 1e-1, "l2_weight": 0.0, "max_length": 32}
    model.fit(rows["train"], numbers, show_progress_bar=False, **options)
model.save_pretrained(folder)
np.save(folder / "expected.npy", np.asarray(model.predict_proba(rows["test"])))
