"""A convolution as a site computes each row with weights that the row's update gives, in torch and ONNX."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from rootstock.service.engine.runners.onnx.export.trunk import to_onnx
from rootstock.service.engine.runners.sites import SiteConvolution

OUT = 6
CONVOLUTIONS = {
    "patches": (nn.Conv2d(3, OUT, 4, stride=4), (3, 18, 17)),
    "one place": (nn.Conv2d(20, OUT, 1), (20, 5, 4)),
    "every second place": (nn.Conv2d(80, OUT, 1, stride=2), (80, 7, 6)),
    "few channels": (nn.Conv2d(3, OUT, 7, stride=2, padding=3), (3, 15, 12)),
    "many channels": (nn.Conv2d(20, OUT, 3, padding=1), (20, 6, 5)),
    "many channels and a stride": (nn.Conv2d(70, OUT, (3, 5), stride=2, padding=(1, 2)), (70, 9, 8)),
    "dilated": (nn.Conv2d(20, OUT, 3, padding=2, dilation=2, bias=False), (20, 8, 7)),
    "padded to the same size": (nn.Conv2d(20, OUT, 4, padding="same"), (20, 6, 6)),
    "a waveform": (nn.Conv1d(1, OUT, 10, stride=5), (1, 61)),
    "along time": (nn.Conv1d(40, OUT, 3, stride=2, padding=1), (40, 21)),
}


class Fed(nn.Module):
    """A site as a function of its input and the parts of its update."""

    def __init__(self, convolution: nn.Module) -> None:
        super().__init__()
        self.site = SiteConvolution(convolution)

    def forward(self, x: Tensor, a: Tensor, b: Tensor, input_scale: Tensor, output_scale: Tensor) -> Tensor:
        parts = {"A": a, "B": b, "input_scale": input_scale, "output_scale": output_scale, "shift": output_scale}
        self.site.take(parts)
        return self.site(x)


def inputs(name: str, rows: int, updates: int, rank: int) -> list[Tensor]:
    """Return an input and the parts of an update for each of its rows, or one for all."""
    torch.manual_seed(rank)
    convolution, shape = CONVOLUTIONS[name]
    area = convolution.weight[0].numel()
    parts = [(updates, rank, area), (updates, rank, OUT), (updates, 1, shape[0]), (updates, 1, OUT)]
    return [torch.randn(rows, *shape), *(0.3 * torch.randn(part) for part in parts)]


def expected(name: str, x: Tensor, a: Tensor, b: Tensor, input_scale: Tensor, output_scale: Tensor) -> Tensor:
    """Return each row's convolution, and the one whose weights are the product of its low-rank factors."""
    convolution, _ = CONVOLUTIONS[name]
    rows = []
    for i, row in enumerate(x):
        u = min(i, len(a) - 1)
        channels = [-1] + [1] * (row.dim() - 1)
        scale, factor = input_scale[u, 0].view(channels), output_scale[u, 0].view(channels)
        plain = convolution((row * scale)[None])[0] * factor + factor
        change = (b[u].T @ a[u]).reshape(convolution.weight.shape)
        rows.append(plain + convolution._conv_forward(row[None], change, None)[0])
    return torch.stack(rows)


@pytest.mark.parametrize("name", CONVOLUTIONS)
@torch.no_grad()
def test_a_row_s_convolution_has_the_row_s_weights(name: str, tmp_path: Path) -> None:
    fed = Fed(CONVOLUTIONS[name][0]).eval()
    names = ["x", "a", "b", "input_scale", "output_scale"]
    free = {n: {0: f"{n}.rows"} | ({1: "rank"} if n in "ab" else {}) for n in [*names, "y"]}
    if len(CONVOLUTIONS[name][1]) == 2:
        free["x"] = {0: "x.rows", 2: "length"}
    path = tmp_path / "site.onnx"
    to_onnx(fed, tuple(inputs(name, 3, 3, 4)), path, names, ["y"], free)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    for rows, updates, rank in [(3, 3, 4), (3, 1, 4), (2, 2, 1), (1, 1, 4), (3, 3, 0), (3, 1, 0), (1, 1, 0)]:
        values = inputs(name, rows, updates, rank)
        wanted = expected(name, *values)
        torch.testing.assert_close(fed(*values), wanted, rtol=1e-4, atol=1e-4)
        feeds = {n: v.numpy() for n, v in zip(names, values, strict=True)}
        np.testing.assert_allclose(session.run(None, feeds)[0], wanted, rtol=1e-4, atol=1e-4)
