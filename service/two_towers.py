"""Answers zero-shot-image-classification with the engines of a foundation's two towers."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from rootstock.adapters.bundle.names.tower_names import IMAGE, PROJECTIONS, inside
from rootstock.adapters.foundation.weights import FoundationWeights
from rootstock.adapters.spec import (
    EMBEDDING,
    ZERO_SHOT_IMAGES,
    Adapter,
    AdapterWeights,
    Array,
    FoundationSpec,
    HeadSpec,
    Preprocessing,
    SiteUpdate,
    TextTower,
)
from rootstock.adapters.strict_json.canonical import digest_of
from rootstock.service.engine.core.answer import Answer
from rootstock.service.engine.core.catalog import ResolvedReference
from rootstock.service.engine.core.errors import EngineError, TooLarge, TooLong, WrongTask
from rootstock.service.engine.core.request import RequestOptions
from rootstock.service.engine.encode.engine import Engine
from rootstock.service.engine.encode.size import check_parameters
from rootstock.service.engine.encode.tasks import TASKS
from rootstock.service.engine.encode.tasks.zero_shot.image import compare, label_texts
from rootstock.service.registry_catalog import RegistryCatalog

T = TypeVar("T")

_LABELS = "parameters.candidate_labels"
_TIMES = ("load_ms", "tokenize_ms", "queue_ms", "inference_ms", "total_ms")


def own_digest(spec: FoundationSpec) -> str:
    """Return the digest of a foundation that compares images with texts without an adapter."""
    return digest_of({"foundation": spec.fingerprint, "task": ZERO_SHOT_IMAGES})


@dataclass(frozen=True)
class TowerCatalog:
    """The adapters of a foundation as one of its towers sees them.

    `tower` begins the names of its modules in the whole model. Of an adapter of both towers, it has the updates
    of its modules, and the projection of its vectors as a linear head. Other adapters are those of the catalog.
    """

    catalog: RegistryCatalog
    base: FoundationWeights
    tower: str

    def resolve(self, reference: str) -> ResolvedReference:
        """Return the version that the reference means now, as the foundation's catalog does."""
        return self.catalog.resolve(reference)

    def load(self, digest: str) -> Adapter:
        """Return the tower's part of the adapter of a digest. Raise CorruptBundle as the catalog does."""
        if digest != own_digest(self.catalog.spec):
            return self.part(self.catalog.load(digest))
        preprocessing = Preprocessing(self.catalog.spec.max_tokens)
        head, weights = HeadSpec("towers"), AdapterWeights({}, {})
        return self.part(Adapter(digest, ZERO_SHOT_IMAGES, None, (), head, preprocessing, weights))

    def part(self, adapter: Adapter) -> Adapter:
        """Return the tower's part of an adapter."""
        if adapter.task != ZERO_SHOT_IMAGES:
            return adapter
        sites = adapter.weights.sites
        name = PROJECTIONS[self.tower]
        has_projection = name in self.catalog.spec.class_for(ZERO_SHOT_IMAGES).linears
        head = _projected(self.base.weight(name), sites.get(name)) if has_projection else {}
        part = replace(
            adapter,
            head=HeadSpec("linear", pooling="pooler"),
            weights=AdapterWeights(inside(self.tower, sites), head),
        )
        text = self.catalog.spec.text_tower
        if self.tower == IMAGE or text is None:
            return part
        return replace(part, task=EMBEDDING["text"], preprocessing=Preprocessing(text.trunk.max_tokens))


def _projected(weight: Array, update: SiteUpdate | None) -> dict[str, Array]:
    """Return a projection with an adapter's update of it, as the tensors of a linear head."""
    if update is None:
        return {"head.weight": weight}
    if update.input_scale is not None:
        weight = weight * update.input_scale
    if update.output_scale is not None:
        weight = weight * update.output_scale[:, None]
    head = {"head.weight": np.asarray(weight + update.b.T @ update.a, np.float32)}
    return head if update.shift is None else head | {"head.bias": update.shift}


class TwoTowers:
    """The engines of a foundation's two towers, which answer one call together.

    Each image is a row of one engine, and the text of each label a row of the other, whatever the number of
    images. Both run under the digest that the reference was resolved to.
    """

    def __init__(
        self, engines: tuple[Engine, Engine], catalogs: tuple[TowerCatalog, TowerCatalog], tower: TextTower
    ) -> None:
        """Take the engines and the catalogs of the tower for images and of the one for texts."""
        self.engines = engines
        self._catalogs = catalogs
        self._tower = tower
        # SigLIP's pipeline truncates the texts of labels, and CLIP's does not.
        self._parameters = {} if tower.trunk.pad_id is None else {"truncation": True}

    def parts(self, adapter: Adapter) -> list[tuple[Engine, Adapter]]:
        """Return each engine with its tower's part of an adapter."""
        return [
            (engine, catalog.part(adapter)) for engine, catalog in zip(self.engines, self._catalogs, strict=True)
        ]

    async def predict_many(
        self,
        references: Sequence[str],
        inputs: Sequence[Any],
        parameters: Mapping[str, Any],
        task: str | None,
        options: RequestOptions,
        targets: Mapping[str, ResolvedReference],
    ) -> list[Answer | Exception]:
        """Return each reference's predictions for the same images, or its error, as `Engine.predict_many` does.

        A reference that `targets` lacks is the foundation itself.
        """
        images, texts = self.engines
        try:
            if task not in (None, ZERO_SHOT_IMAGES):
                raise WrongTask(references[0], ZERO_SHOT_IMAGES, task)
            labels = self._labels(parameters, len(references))
        except EngineError as error:
            return [error] * len(references)
        own = own_digest(images.spec)
        resolved = {one: targets.get(one) or ResolvedReference(one, None, own) for one in references}
        of_images = images.predict_many(references, inputs, parameters, None, options, resolved)
        of_texts = _embedded(texts.predict_many(references, labels, self._parameters, None, options, resolved))
        answers = zip(*await together([of_images, of_texts]), strict=True)
        return [self._combined(image, text, parameters) for image, text in answers]

    def _labels(self, parameters: Mapping[str, Any], references: int) -> list[str]:
        check_parameters(parameters)
        TASKS[ZERO_SHOT_IMAGES].check(parameters)
        labels = label_texts(parameters)
        if len(labels) * references > (most := self.engines[1].limits.max_inputs):
            of = "" if references == 1 else f" for each of {references} models"
            raise TooLarge(f"{len(labels)} candidate labels{of}; at most {most} together; split them", _LABELS)
        return labels

    def _combined(
        self, image: Answer | Exception, text: Answer | Exception, parameters: Mapping[str, Any]
    ) -> Answer | Exception:
        """Return the answer for the vectors of both towers, or the error of one of them."""
        if isinstance(image, Exception):
            return image
        if isinstance(text, Exception):
            return text
        labels = np.asarray(text.predictions, np.float32)
        return replace(
            image,
            predictions=[compare(vector, labels, self._tower, parameters) for vector in image.predictions],
            prompt_tokens=image.prompt_tokens + text.prompt_tokens,
            **{name: max(getattr(image, name), getattr(text, name)) for name in _TIMES},
        )


async def _embedded(call: Coroutine[Any, Any, list[Answer | Exception]]) -> list[Answer | Exception]:
    """Return the outcomes of the texts' call. Its errors name the labels instead of inputs."""
    try:
        outcomes = await call
    except EngineError as error:
        raise _of_labels(error) from None
    return [_of_labels(one) if isinstance(one, EngineError) else one for one in outcomes]


def _of_labels(error: EngineError) -> EngineError:
    if isinstance(error, TooLong):
        return TooLong(f"the text of a candidate label is too long: {error.args[0]}", _LABELS)
    if error.param is not None and error.param.startswith("inputs"):
        error.param = _LABELS
    return error


async def together(calls: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Run calls concurrently. If one raises an error, cancel the others and raise it."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
