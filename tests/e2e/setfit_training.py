"""Trains a SetFit model with SetFit itself: python setfit_training.py BODY ROWS.json FOLDER STEPS.

ROWS.json holds `train` and `labels`, and `test`. The probabilities of the test texts go to FOLDER/expected.npy.
With STEPS 0 the body stays as it is, and only the head is fitted.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from datasets import Dataset
from setfit import SetFitModel, Trainer, TrainingArguments

body, rows, folder, steps = (
    sys.argv[1],
    json.loads(Path(sys.argv[2]).read_text()),
    Path(sys.argv[3]),
    int(sys.argv[4]),
)
names = sorted(set(rows["labels"]))
model = SetFitModel.from_pretrained(body, labels=names)
numbers = [names.index(label) for label in rows["labels"]]
if steps:
    data = Dataset.from_dict({"text": rows["train"], "label": numbers})
    arguments = TrainingArguments(
        batch_size=16, max_steps=steps, seed=0, report_to="none", output_dir=str(folder)
    )
    Trainer(model=model, args=arguments, train_dataset=data).train()
else:
    model.fit(rows["train"], numbers, num_epochs=1)
model.save_pretrained(folder)
np.save(folder / "expected.npy", np.asarray(model.predict_proba(rows["test"])))
