"""Which tokens of a text speak for a label, by integrated gradients (Sundararajan et al., 2017; captum)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rootstock.training.data.encoding import encode_texts
from rootstock.training.errors import TrainingError, extra
from rootstock.training.network.predictor import Predictor

_STEPS = 64


@dataclass(frozen=True)
class Attribution:
    """A label's probability for a text, and what each token adds to its logit.

    `tokens` are (token, contribution); `missing` is how far their sum is from the logit less that of the text
    with every token masked out, which integrated gradients make small.
    """

    label: str
    probability: float
    tokens: tuple[tuple[str, float], ...]
    missing: float

    def to_json(self) -> dict[str, Any]:
        """The attribution, JSON-ready."""
        tokens = [{"token": token, "contribution": value} for token, value in self.tokens]
        return {"label": self.label, "probability": self.probability, "tokens": tokens, "missing": self.missing}


def attribute(trained: Predictor, text: str, label: str | None = None) -> Attribution:
    """The attribution of a text's label, the best one where none is named; text classifiers alone."""
    import torch

    with extra("attributions"):
        from captum.attr import LayerIntegratedGradients
    if trained.task_type != "SEQ_CLS":
        raise TrainingError(
            f"{trained.path}: explains text classifiers; its task is {trained.bundle.manifest.task}"
        )
    if label is not None and label not in trained.labels:
        raise TrainingError(f"{trained.path}: has no label {label!r}; its labels: {', '.join(trained.labels)}")
    rows = encode_texts(trained.tokenizer, [text])
    inputs = trained.inputs(rows)
    batch = inputs.batch([0])
    trained.network.train(False)
    with torch.no_grad():
        probabilities = trained.network.logits(batch).softmax(-1)[0]
    chosen = int(probabilities.argmax()) if label is None else trained.labels.index(label)

    def logit(ids: torch.Tensor) -> torch.Tensor:
        from dataclasses import replace

        repeated = {name: getattr(batch, name).expand(len(ids), -1) for name in ("types", "mask")}
        return trained.network.logits(replace(batch, ids=ids, **repeated))[:, chosen]

    # The baseline: special tokens stay, every other is the mask token, or the padding where there is none.
    blank = next((i for t in ("[MASK]", "<mask>") if (i := trained.tokenizer.token_to_id(t)) is not None), 0)
    special = trained.tokenizer.encode(text).special_tokens_mask
    baseline = torch.where(
        torch.tensor([special], dtype=torch.bool), batch.ids, torch.full_like(batch.ids, blank)
    )
    embeddings = trained.network.trunk.get_input_embeddings()  # type: ignore[operator]
    method = LayerIntegratedGradients(logit, embeddings)
    found, delta = method.attribute(
        batch.ids, baselines=baseline, n_steps=_STEPS, internal_batch_size=16, return_convergence_delta=True
    )
    contributions = found.sum(-1)[0].tolist()
    names = [trained.tokenizer.id_to_token(i) or "" for i in rows[0].ids]
    tokens = tuple(
        (name, value) for name, value, hidden in zip(names, contributions, special, strict=True) if not hidden
    )
    return Attribution(trained.labels[chosen], float(probabilities[chosen]), tokens, float(delta[0]))
