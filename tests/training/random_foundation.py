"""Makes the foundation of spoken-digits.yaml: a small Audio Spectrogram Transformer with random weights.

It stands for a trained one where none is at hand. Its figures say what an adapter learns on it, and nothing about
trained foundations.
"""

from __future__ import annotations

import sys

import torch
from transformers import ASTConfig, ASTFeatureExtractor, ASTModel

# Frames of 10 ms, of which a digit has at most 128, and bands of frequencies.
_FRAMES, _BANDS = 128, 64


def make(folder: str) -> None:
    """Write the foundation into a folder, the same on each machine and with each call."""
    torch.manual_seed(0)
    config = ASTConfig(
        hidden_size=192, num_hidden_layers=4, num_attention_heads=3, intermediate_size=384, max_length=_FRAMES,
        num_mel_bins=_BANDS, initializer_range=0.05,
    )  # fmt: skip
    ASTModel(config).save_pretrained(folder)
    ASTFeatureExtractor(max_length=_FRAMES, num_mel_bins=_BANDS).save_pretrained(folder)


if __name__ == "__main__":
    make(sys.argv[1])
