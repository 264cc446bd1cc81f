"""The foundations, the names and the runner."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings

from rootstock.adapters.errors import InvalidReference
from rootstock.adapters.foundation.location import FoundationError
from rootstock.adapters.foundation.names import reference_names
from rootstock.adapters.reference import FOUNDATION, Reference
from rootstock.adapters.served_names import ServedNames, read_names
from rootstock.service.settings.lists import split


class ModelSettings(BaseSettings):
    """The foundations, the names and the runner."""

    foundation: str = Field(
        "default",
        description="Foundation model to serve: `default`, `chat`, a local folder, or org/name@<40 hex "
        "revision>.",
    )
    foundations: str = Field(
        "",
        description="Foundation models to serve, separated by commas. If empty, the server serves "
        "`ROOTSTOCK_FOUNDATION` alone.",
    )
    served_names: str = Field(
        "",
        description="Other names for models, separated by commas, each `name=reference`, such as "
        "`text-embedding-3-small=foundation`. If empty, there are none.",
    )
    pin: str = Field(
        "",
        description="Adapter references, or names of `ROOTSTOCK_SERVED_NAMES`, to keep in memory and in slots, "
        "separated by commas. If empty, none is pinned.",
    )
    runner: Literal["auto", "onnx", "torch"] = Field(
        "auto",
        description="`onnx` (ONNX Runtime), `torch` or `auto`. `auto` takes ONNX where torch or an NVIDIA device "
        "is missing or the precision is `int8`, and torch otherwise.",
    )
    precision: Literal["fp32", "int8", "auto"] = Field(
        "fp32",
        description="Precision of the foundation's weights: `fp32`, or `int8` on ONNX Runtime alone. `int8` "
        "needs `rootstock foundation export --int8` first. `auto` takes `int8` where that export is there, the "
        "processor is fast in it and every golden set passes, and `fp32` otherwise.",
    )
    threads: int = Field(
        0, ge=0, description="CPU threads of the runner. 0: one for each core that the process may use."
    )
    generation_precision: Literal["fp32", "bf16", "int4"] = Field(
        "fp32",
        description="Precision of a decoder's weights: `fp32`, `bf16`, or `int4`, which is fastest for few "
        "sequences. An encoder–decoder foundation stays in fp32.",
    )

    @field_validator("pin")
    @classmethod
    def _names_references(cls, pin: str, info: ValidationInfo) -> str:
        names = ServedNames(read_names(info.data.get("served_names", "")), {})
        for reference in map(names.reference, split(pin)):
            try:
                name = Reference.parse(reference).name
            except InvalidReference as error:
                raise ValueError(str(error)) from None
            if name == FOUNDATION:
                raise ValueError(f"{FOUNDATION} is always in memory and cannot be pinned; name adapters")
        return pin

    @field_validator("served_names")
    @classmethod
    def _names_models(cls, names: str) -> str:
        try:
            read_names(names)
        except InvalidReference as error:
            raise ValueError(str(error)) from None
        return names

    @model_validator(mode="after")
    def _int8_on_onnx(self) -> Self:
        if self.precision == "int8" and self.runner == "torch":
            raise ValueError(
                "ROOTSTOCK_RUNNER=torch does not support ROOTSTOCK_PRECISION=int8: set the runner to onnx, or "
                "the precision to fp32"
            )
        return self

    @model_validator(mode="after")
    def _one_list_of_foundations(self) -> Self:
        listed = split(self.foundations)
        if listed and "foundation" in self.model_fields_set and self.foundation != listed[0]:
            raise ValueError(
                f"ROOTSTOCK_FOUNDATION is {self.foundation}, but ROOTSTOCK_FOUNDATIONS begins with {listed[0]}; "
                "set one of the two"
            )
        try:
            reference_names(listed or (self.foundation,))
        except FoundationError as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def hosted(self) -> dict[str, str]:
        """Return the setting of each foundation to serve, by its reference, in the order of the settings."""
        listed = split(self.foundations) or (self.foundation,)
        return dict(zip(reference_names(listed), listed, strict=True))

    @property
    def pinned(self) -> tuple[str, ...]:
        """Return the references in `pin`, without duplicates."""
        return split(self.pin)

    @property
    def names(self) -> dict[str, str]:
        """Return the names in `served_names`, in lower case, each with its reference."""
        return read_names(self.served_names)
