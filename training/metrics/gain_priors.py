"""The gains of adapters over heads alone on the data sets that were measured: priors for another data set.

`rootstock train study` measures them; docs/log.md ("Training") has the figures, and ADR 46 the reasons.
"""

from __future__ import annotations

from rootstock.training.metrics.expected_gain import GainPrior

_STRENGTHS = (0.25, 0.5, 0.75, 1.0)

# Texts with few rows a label, trained by contrast: HWU64, tweet emotions and domains of CLINC150.
FEW_TEXTS = GainPrior(_STRENGTHS, (0.13, 0.14, 0.13, 0.10), (0.10, 0.12, 0.13, 0.17), 0.9, 0.06)
# Texts with many rows a label, trained by cross entropy: domains of CLINC150.
MANY_TEXTS = GainPrior(_STRENGTHS, (0.12, 0.2, 0.25, 0.25), (0.15, 0.22, 0.26, 0.3), 0.9, 0.06)
# Entities in few sentences: SNIPS and WNUT17, where an adapter changes little.
FEW_ENTITIES = GainPrior(_STRENGTHS, (0.0, 0.01, 0.01, 0.01), (0.1, 0.1, 0.1, 0.1), 0.9, 0.06)
# Entities in many sentences: WNUT17 and the demo adapter.
ENTITIES = GainPrior(_STRENGTHS, (0.08, 0.18, 0.25, 0.3), (0.12, 0.2, 0.25, 0.3), 0.9, 0.06)
# Images and recordings: sign digits and spoken digits, which leave much open.
MEDIA = GainPrior(_STRENGTHS, (0.2, 0.35, 0.45, 0.5), (0.3, 0.4, 0.45, 0.5), 0.9, 0.1)

# Label sets (micro-F1) and numbers (R²): no prior data sets were measured, so their gains may be of either sign.
LABEL_SETS = GainPrior(_STRENGTHS, (0.05, 0.1, 0.1, 0.1), (0.15, 0.2, 0.25, 0.3), 0.9, 0.1)
NUMBERS = GainPrior(_STRENGTHS, (0.05, 0.1, 0.1, 0.1), (0.15, 0.2, 0.25, 0.3), 0.9, 0.1)

# By the kind of input and problem, and the way of training.
GAIN_PRIORS = {
    "few_texts": FEW_TEXTS,
    "many_texts": MANY_TEXTS,
    "few_entities": FEW_ENTITIES,
    "entities": ENTITIES,
    "media": MEDIA,
    "label_sets": LABEL_SETS,
    "numbers": NUMBERS,
}
