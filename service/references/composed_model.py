"""The composition that a request names: the versions of its parts, their foundation, and whose head answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rootstock.adapters.reference import Reference
from rootstock.adapters.registry import Resolution
from rootstock.adapters.spec import EMBEDDING, GENERATION, ZERO_SHOT_IMAGES
from rootstock.service.engine.core.catalog import COMPOSITION, ResolvedPart, ResolvedReference
from rootstock.service.engine.core.composition import Composition, CompositionPart
from rootstock.service.engine.core.errors import InvalidComposition
from rootstock.service.foundation_host import FoundationHost

# The tasks whose adapters bring no head: the foundation's head answers, or a pooled vector.
_HEADLESS = (*GENERATION, *EMBEDDING.values())


@dataclass(frozen=True, slots=True)
class GivenPart:
    """A part of a composition as a request names it: a reference, and the factor of its updates."""

    reference: str
    weight: float


# The host of a reference, and the version that it means; None for a foundation itself.
Found = tuple[FoundationHost, Resolution | None]


@dataclass(frozen=True, slots=True)
class ComposedModel:
    """A composition of versions of adapters on one foundation. `task` is that of the part that answers.

    `name` states the weights and the versions, such as "0.7*tone@3+0.3*style@1". It is no reference. `fixed`
    holds a reference to the very version of each part.
    """

    name: str
    host: FoundationHost
    task: str | None
    target: ResolvedReference
    fixed: tuple[Reference, ...]


# A model that a request asks: by a reference, or by its parts.
Asked = str | ComposedModel


def composed_model(parts: Sequence[GivenPart], found: Sequence[Found], head: str | None) -> ComposedModel:
    """Return the composition of parts that were found. `head` is the reference of the part that answers.

    By default the first part answers whose task has a head, else the first. A part of weight 1 alone is the
    adapter itself, of any kind. Raise InvalidComposition for parts that cannot be composed.
    """
    versions = [_version(i, resolution) for i, (_, resolution) in enumerate(found)]
    host = _common_host([host for host, _ in found])
    answering = _answering(parts, versions, head)
    composition = Composition(
        tuple(CompositionPart(one.digest, part.weight) for one, part in zip(versions, parts, strict=True)),
        answering,
    )
    resolved = tuple(
        ResolvedPart(
            part.reference,
            # Metrics and spans are the operator's, so they state a name that no two tenants share.
            one.stored or one.name,
            one.version,
            one.digest,
            part.weight,
            i == answering,
        )
        for i, (part, one) in enumerate(zip(parts, versions, strict=True))
    )
    name = "+".join(
        f"{part.weight:g}*{one.name}@{one.version}" for part, one in zip(parts, versions, strict=True)
    )
    if len(parts) == 1 and parts[0].weight == 1:
        target = ResolvedReference(COMPOSITION, None, versions[0].digest, resolved)
    else:
        target = ResolvedReference(COMPOSITION, None, composition.digest, resolved, composition)
    fixed = tuple(Reference.parse(one.name).at(one.digest) for one in versions)
    return ComposedModel(name, host, versions[answering].task, target, fixed)


def _version(place: int, resolution: Resolution | None) -> Resolution:
    where = f"adapters[{place}]"
    if resolution is None:
        message = f"{where} is a foundation, which adds no change; leave it out, or send it as model"
        raise InvalidComposition(message, f"{where}.model")
    if resolution.task == ZERO_SHOT_IMAGES:
        raise InvalidComposition(
            f"{where} changes the two towers of its foundation, and a composition changes one trunk; send it as "
            "model",
            f"{where}.model",
        )
    return resolution


def _common_host(hosts: Sequence[FoundationHost]) -> FoundationHost:
    names = list(dict.fromkeys(host.name for host in hosts))
    if len(names) > 1:
        raise InvalidComposition(
            f"the parts are of the foundations {', '.join(names)}, whose changes do not add up; compose adapters "
            "of one foundation",
            "adapters",
        )
    return hosts[0]


def _answering(parts: Sequence[GivenPart], versions: Sequence[Resolution], head: str | None) -> int:
    """Return the index of the part that answers."""
    if head is None:
        return next((i for i, one in enumerate(versions) if one.task not in _HEADLESS), 0)
    references = [part.reference for part in parts]
    if head not in references:
        raise InvalidComposition(
            f"head is {head[:200]!r}, which is no model of adapters; name one as it stands there", "head"
        )
    return references.index(head)
