"""The pictures of a run's report on images or recordings: changed copies, and the most confident errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rootstock.training.data.example import Example
from rootstock.training.errors import extra
from rootstock.training.network.inputs import Inputs
from rootstock.training.network.media.media_encoder import MediaEncoder
from rootstock.training.network.media.media_inputs import ChangedBatch
from rootstock.training.network.media.media_row import MediaRow
from rootstock.training.network.network import Network
from rootstock.training.report.sheets import Tile, sheet

_ERRORS = 12
# Occlusion takes some fifty passes of the trunk for each image.
_EXPLAINED = 6
_PREVIEWED = 3
_COPIES = 5
# The sides of the grey box, and its steps, as parts of the image's side.
_BOX, _STEP = 4, 8


def media_sheets(
    encoder: MediaEncoder,
    network: Network,
    train: Sequence[MediaRow],
    test: Sequence[Example],
    mistakes: Mapping[str, Any],
) -> dict[str, bytes]:
    """Return PNG files by name: `augmented`, if rows are changed, and `mistakes`, if there are any.

    `network` is that of the saved files, and `mistakes` those of metrics.json.
    """
    pictures = {}
    if encoder.augmentation is not None and train:
        pictures["augmented"] = sheet(_copies(encoder, train))
    by_text = {example.text: example for example in test}
    wrong = [(one, by_text[one["text"]]) for one in mistakes["rows"][:_ERRORS] if one["text"] in by_text]
    if wrong:
        tiles = [_error(encoder, network, one, example, i) for i, (one, example) in enumerate(wrong)]
        pictures["mistakes"] = sheet(tiles)
    return pictures


def _copies(encoder: MediaEncoder, train: Sequence[MediaRow]) -> list[Tile]:
    """Return some rows, each before copies of it."""
    chosen = [train[i] for i in np.linspace(0, len(train) - 1, min(_PREVIEWED, len(train))).astype(int)]
    copies = encoder.views(train)
    tiles = []
    for row in chosen:
        tiles.append(Tile(encoder.shown(row), row.file.name))
        of_row = [copy for copy in copies if copy.file == row.file][:_COPIES]
        tiles += [Tile(encoder.shown(copy), f"copy {copy.view}") for copy in of_row]
        tiles += [Tile(np.ones((1, 1, 3)), "")] * (_COPIES - len(of_row))
    return tiles


def _error(encoder: MediaEncoder, network: Network, one: Mapping[str, Any], example: Example, place: int) -> Tile:
    row = encoder.encode([example])[0]
    caption = f"{one['text']}\n{one['true']} as {one['predicted']}, {one['score']:.2f}"
    content = encoder.shown(row)
    if content.ndim == 1:
        caption += f", {len(content) / encoder.rate:.1f} s"
    explains = encoder.spec.modality == "image" and place < _EXPLAINED
    answer = encoder.labels.index(one["predicted"])
    saliency = occlusion(network, encoder.inputs([row]), answer) if explains else None
    return Tile(encoder.prepared_image(row) if explains else content, caption, saliency)


def occlusion(network: Network, inputs: Inputs, label: int) -> npt.NDArray[np.float32]:
    """Return what each place of the one image in `inputs` adds to the logit of a label, (height, width).

    A box with the mean colour covers one place after another, and the fall of the logit counts for it (Zeiler and
    Fergus, 2014; captum).
    """
    import torch

    with extra("attributions"):
        from captum.attr import Occlusion
    batch = inputs.batch([0])
    name = network.spec.inputs[0]
    values = batch.arguments(network.spec)[name]
    height, width = values.shape[-2:]

    def logit(changed: torch.Tensor) -> torch.Tensor:
        return network.logits(ChangedBatch({name: changed}, batch.targets))[:, label]

    network.train(False)
    with torch.no_grad():
        found = Occlusion(logit).attribute(
            values,
            sliding_window_shapes=(values.shape[1], height // _BOX, width // _BOX),
            strides=(values.shape[1], height // _STEP, width // _STEP),
            perturbations_per_eval=16,
        )
    return np.asarray(found[0].sum(0), np.float32)
