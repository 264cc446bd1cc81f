"""The fields with which a request names its model: one reference, or the parts of a composition."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, StrictStr, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from rootstock.service.api.options import sticky_of
from rootstock.service.api.server import server_of
from rootstock.service.api.strict import Strict, one_of
from rootstock.service.engine.core.catalog import ResolvedReference
from rootstock.service.engine.core.composition import MOST_PARTS, MOST_WEIGHT
from rootstock.service.references.composed_model import Asked, ComposedModel, GivenPart


class WeightedAdapter(Strict):
    """A part of a composition: a reference, and the factor of its changes. A head is not scaled."""

    model: Annotated[StrictStr, Field(examples=["review-sentiment@1"])]
    weight: Annotated[
        float, Field(strict=True, allow_inf_nan=False, ge=-MOST_WEIGHT, le=MOST_WEIGHT, examples=[0.7])
    ] = 1.0


class ModelField(BaseModel):
    """The field `model`, which a composition leaves out."""

    model: Annotated[StrictStr, Field(examples=["review-sentiment"])] | None = None


class ComposedFields(ModelField):
    """The fields of a model: either `model`, or `adapters` and perhaps `head`.

    `adapters` answer as one: the foundation changes by the weighted sum of their changes. `head` is the `model`
    of the one that answers, by default the first whose task has a head.
    """

    model_config = ConfigDict(json_schema_extra=one_of(model="string", adapters="array"))

    adapters: Annotated[list[WeightedAdapter], Field(min_length=1, max_length=MOST_PARTS)] | None = Field(
        None, validate_default=True
    )
    head: StrictStr | None = None

    @field_validator("adapters")
    @classmethod
    def _one_way(
        cls, adapters: list[WeightedAdapter] | None, info: ValidationInfo
    ) -> list[WeightedAdapter] | None:
        """Check this among the fields, not after them, so that one answer names all missing fields."""
        ways = [name for name in ("model", "models") if name in cls.model_fields]
        if any(name not in info.data for name in ways):
            return adapters
        given = [name for name in ways if info.data[name] is not None] + ["adapters"] * (adapters is not None)
        if not given:
            raise PydanticCustomError("missing", "Field required", {"field": "model"})
        if len(given) > 1:
            message = f"the body has both {given[0]} and {given[1]}; send one of the two"
            raise PydanticCustomError("two_models", "{message}", {"message": message, "field": given[1]})
        return adapters

    @field_validator("head")
    @classmethod
    def _of_adapters(cls, head: str | None, info: ValidationInfo) -> str | None:
        if head is not None and "adapters" in info.data and info.data["adapters"] is None:
            raise ValueError("head names one of adapters, and the body has none; leave it out")
        return head


def asked_of(body: ComposedFields, request: Request) -> Asked:
    """Return the model that a body asks. Raise as `Foundations.compose` does."""
    if body.adapters is None:
        return cast(str, body.model)
    parts = [GivenPart(part.model, part.weight) for part in body.adapters]
    return server_of(request).foundations.directory.compose(parts, body.head, sticky_of(request))


def name_of(asked: Asked) -> str:
    """Return the name of a model in its answer: the reference of the request, or the name of a composition."""
    return asked.name if isinstance(asked, ComposedModel) else asked


class AnsweredPart(BaseModel):
    """A part of the composition that answered: its reference, what it meant, and its weight.

    `head` tells whether the answer is that of its head.
    """

    model: str
    version: int
    digest: str
    weight: float
    head: bool


# The parts of an answer; an answer of one adapter or of a foundation has none.
AnsweredParts = Annotated[list[AnsweredPart] | None, Field(exclude_if=lambda parts: parts is None)]


def parts_of(resolved: ResolvedReference) -> list[AnsweredPart] | None:
    """Return the parts of what a request's model meant, or None if it is no composition."""
    if not resolved.parts:
        return None
    return [
        AnsweredPart(
            model=part.reference,
            version=part.version,
            digest=part.digest,
            weight=part.weight,
            head=part.answers,
        )
        for part in resolved.parts
    ]
