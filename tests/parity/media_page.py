"""The part of docs/compatibility.md on foundations that read images or recordings."""

from __future__ import annotations

from rootstock.adapters.foundation.families import AUDIO_ARCHITECTURES, IMAGE_ARCHITECTURES

_TEXT = """\
A foundation of one of these architectures reads images: {images}. These read recordings: {audio}. Of clip and \
siglip, the trunk is the tower for images; of whisper, the encoder. There is no class of transformers for \
classification on dinov3_vit, clip_vision_model and siglip_vision_model, so these only embed.

The folder holds `preprocessor_config.json`, or `processor_config.json` with the same content under \
`image_processor` or `feature_extractor`. The fingerprint covers the processor's config. A tokenizer is not \
needed. With `tokenizer.json`, a clip or siglip that holds its tower for texts also serves \
`zero-shot-image-classification`, and its fingerprint covers that tower, the projections and the tokenizer. \
SigLIP's texts are read without an attention mask, so its tokenizer's `model_input_names` must be \
`["input_ids"]`. The server refuses a processor that leaves images at different sizes, and a config with \
`use_weighted_layer_sum` or `add_adapter`.

An adapter may change linear layers of the trunk and convolutions. It cannot change these modules, and the \
server refuses it if it tries (check `sites`):

- depthwise and grouped convolutions, and a convolution whose weight is normalised;
- a linear layer whose weight another module computes with: `q_proj`, `k_proj`, `v_proj` and `out_proj` of \
wavlm, and `head.attention.out_proj` of siglip. In PEFT, LoRA on those of wavlm has no effect.

Batch normalisation stays as in the foundation. A trained bias of a layer normalisation is served where its \
states have the shape (rows, tokens, width), so not in convnext.
"""


def media_section() -> str:
    """The section, with the lists of the architectures."""
    return "## Images and recordings\n\n" + _TEXT.format(
        images=", ".join(IMAGE_ARCHITECTURES), audio=", ".join(AUDIO_ARCHITECTURES)
    )
