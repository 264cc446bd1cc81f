"""The contribution of each token to a label, by integrated gradients (Sundararajan et al., 2017; captum)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rootstock.training.errors import TrainingError, extra
from rootstock.training.network.predictor import Predictor

_STEPS = 64


@dataclass(frozen=True)
class Attribution:
    """The probability of a label for a text, and the contribution of each token to its logit.

    `tokens` are (token, contribution). Their sum should be the logit less that of the text with every token
    masked; `missing` is the remaining difference.
    """

    label: str
    probability: float
    tokens: tuple[tuple[str, float], ...]
    missing: float

    def to_json(self) -> dict[str, Any]:
        """Return the attribution as JSON values."""
        tokens = [{"token": token, "contribution": value} for token, value in self.tokens]
        return {"label": self.label, "probability": self.probability, "tokens": tokens, "missing": self.missing}


def attribute(adapter: Predictor, text: str, label: str | None = None) -> Attribution:
    """Return the attribution of a label of a text, by default of the best one; for text classifiers alone."""
    import torch

    with extra("attributions"):
        from captum.attr import LayerIntegratedGradients
    if adapter.task_type != "SEQ_CLS":
        raise TrainingError(
            f"{adapter.path}: attributions need a text classifier; this adapter's task is "
            f"{adapter.bundle.manifest.task}"
        )
    if not adapter.problem.has_classes:
        raise TrainingError(
            f"{adapter.path}: attributions need an adapter that gives each text one label; the problem type of "
            f"this one is {adapter.problem.problem_type}"
        )
    if label is not None and label not in adapter.labels:
        raise TrainingError(f"{adapter.path}: has no label {label!r}; its labels: {', '.join(adapter.labels)}")
    tokenizer = adapter.encoder.tokenizer
    rows = adapter.encoder.encode_texts([text])
    batch = adapter.encoder.inputs(rows).batch([0])
    adapter.network.train(False)
    with torch.no_grad():
        probabilities = adapter.network.logits(batch).softmax(-1)[0]
    label_id = int(probabilities.argmax()) if label is None else adapter.labels.index(label)

    def logit(ids: torch.Tensor) -> torch.Tensor:
        from dataclasses import replace

        repeated = {name: getattr(batch, name).expand(len(ids), -1) for name in ("types", "mask")}
        return adapter.network.logits(replace(batch, ids=ids, **repeated))[:, label_id]

    # In the baseline special tokens stay; every other is the mask token, or the padding without one.
    blank = next((i for t in ("[MASK]", "<mask>") if (i := tokenizer.token_to_id(t)) is not None), 0)
    special = tokenizer.encode(text).special_tokens_mask
    baseline = torch.where(
        torch.tensor([special], dtype=torch.bool), batch.ids, torch.full_like(batch.ids, blank)
    )
    embeddings = adapter.network.trunk.get_input_embeddings()  # type: ignore[operator]
    method = LayerIntegratedGradients(logit, embeddings)
    gradients, delta = method.attribute(
        batch.ids, baselines=baseline, n_steps=_STEPS, internal_batch_size=16, return_convergence_delta=True
    )
    contributions = gradients.sum(-1)[0].tolist()
    names = [tokenizer.id_to_token(i) or "" for i in rows[0].ids]
    tokens = tuple(
        (name, value) for name, value, hidden in zip(names, contributions, special, strict=True) if not hidden
    )
    return Attribution(adapter.labels[label_id], float(probabilities[label_id]), tokens, float(delta[0]))
