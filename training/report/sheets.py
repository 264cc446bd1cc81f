"""Contact sheets of images and of recordings, with captions, as PNG files."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rootstock.training.errors import extra

_DPI = 120
_COLUMNS = 6
_SIDE = 1.7
_COLOUR = "#1f5f8b"
_LONGEST = 26


class Tile(NamedTuple):
    """One input of a sheet.

    `content` is an RGB image, (height, width, 3), or the samples of a recording, (samples,). `saliency` (height,
    width) is drawn over an image: the more a place adds to the answer, the redder.
    """

    content: npt.NDArray[Any]
    caption: str
    saliency: npt.NDArray[Any] | None = None


def sheet(tiles: Sequence[Tile]) -> bytes:
    """Return a PNG of the tiles in rows of six, or of three if each also has its saliency beside it."""
    with extra("plots"):
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    places = [panel for tile in tiles for panel in _panels(tile)]
    lines = -(-len(places) // _COLUMNS)
    figure = Figure(figsize=(_SIDE * _COLUMNS, (_SIDE + 0.35) * lines), layout=ConstrainedLayoutEngine())
    axes = figure.subplots(lines, _COLUMNS, squeeze=False).flatten()
    for each in axes:
        each.set_axis_off()
    for panel, each in zip(places, axes, strict=False):
        _draw(panel, each)
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(out, dpi=_DPI, format="png")
    return out.getvalue()


def _panels(tile: Tile) -> list[Tile]:
    if tile.saliency is None:
        return [tile]
    return [tile._replace(saliency=None), tile._replace(caption="contributes")]


def _draw(tile: Tile, axes: Any) -> None:
    axes.set_title(_caption(tile.caption), fontsize=8, parse_math=False)
    if tile.content.ndim == 1:
        axes.plot(tile.content, linewidth=0.5, color=_COLOUR)
        return
    axes.imshow(tile.content)
    if tile.saliency is not None:
        most = float(np.abs(tile.saliency).max()) or 1.0
        height, width = tile.content.shape[:2]
        axes.imshow(
            tile.saliency,
            cmap="bwr",
            vmin=-most,
            vmax=most,
            alpha=0.55,
            extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        )


def _caption(text: str) -> str:
    lines = [line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…" for line in text.split("\n")]
    return "\n".join(lines)
