"""The limits on memory, the queue, batches and requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field
from pydantic_settings import BaseSettings

if TYPE_CHECKING:
    from rootstock.adapters.bundle import Limits


class CapacitySettings(BaseSettings):
    """The limits on memory, the queue, batches and requests."""

    slots: int = Field(256, ge=3, description="Adapter slots in the runner; two are reserved.")
    cache_mb: int = Field(
        512, ge=1, description="Host memory for adapters, in MiB. Several foundations share it equally."
    )
    trunk_cache_mb: int = Field(
        0,
        ge=0,
        description="Memory for trunk outputs that ONNX Runtime reuses for adapters with a head alone, in MiB. "
        "Several foundations share it equally. 0: none are kept.",
    )
    queue_items: int = Field(
        2048,
        ge=1,
        description="Most inputs in the queue; more get 429. One model may hold at most four times what it "
        "leaves free.",
    )
    queue_tokens: int = Field(
        262_144,
        ge=1,
        description="Most tokens in the queue; more get 429. One model may hold at most four times what it "
        "leaves free.",
    )
    batch_rows: int = Field(
        32, ge=1, description="Most distinct inputs in one forward pass, and most rows of one adapter in it."
    )
    batch_tokens: int = Field(
        512,
        ge=1,
        description="Most tokens in one forward pass, padding included. With a larger value, a single request "
        "waits longer for others.",
    )
    shadow_requests: int = Field(
        8,
        ge=0,
        le=1024,
        description="Most requests that other versions compute again at once, for shadows and rollback rules; "
        "more are dropped. 0: none are computed.",
    )
    max_inputs: int = Field(
        256, ge=1, le=2**14, description="Most inputs in one request, multiplied by the number of its models."
    )
    max_body_mb: int = Field(
        16,
        ge=1,
        description="Largest request body, in MiB, and the most that one request may download. Base64 makes a "
        "file a third longer. Uploads have `ROOTSTOCK_MAX_BUNDLE_MB`.",
    )
    max_bundle_mb: int = Field(64, ge=1, description="Largest uploaded bundle, in MiB.")
    max_rank: int = Field(64, ge=1, description="Largest LoRA rank that the server accepts.")
    request_timeout: float = Field(
        30.0,
        gt=0,
        le=3600,
        description="Seconds that a request may wait before it gets 504. A request may ask for fewer.",
    )
    generation_timeout: float = Field(
        300.0,
        gt=0,
        le=3600,
        description="Seconds that a generated answer may take before it ends with an error. A request may ask "
        "for fewer.",
    )
    generation_rows: int = Field(
        32, ge=1, le=1024, description="Most sequences that decode together on a foundation that generates text."
    )
    generation_cache_tokens: int = Field(
        65_536,
        ge=1024,
        description="Room for the keys and values of sequences, in tokens, on each foundation that generates.",
    )

    @property
    def bundle_limits(self) -> Limits:
        """Return the limits of a bundle that these settings name."""
        from rootstock.adapters.bundle import Limits

        return Limits(max_bundle_bytes=self.max_bundle_mb * 2**20, max_rank=self.max_rank)
