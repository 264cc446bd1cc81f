"""The model that a reference means: its tasks and its labels, which some clients' answers are made of."""

from __future__ import annotations

from dataclasses import dataclass

from rootstock.service.foundations import Foundations


@dataclass(frozen=True)
class ServedModel:
    """An adapter or a foundation. `reference` always means the same version; `labels` are in the order of ids.

    An adapter has one task; a foundation may have several, the default first.
    """

    reference: str
    tasks: tuple[str, ...]
    labels: tuple[str, ...]

    @property
    def task(self) -> str:
        """Return the default task."""
        return self.tasks[0]


async def find_model(foundations: Foundations, reference: str, sticky: str) -> ServedModel:
    """Return the model that a request with this sticky key gets. Raise as `Foundations.adapter` does."""
    host, adapter = await foundations.adapter(reference, sticky)
    if adapter is None:
        return ServedModel(reference, tuple(host.spec.own_tasks), ())
    # A client may move `live` before the model is called.
    return ServedModel(foundations.directory.pinned(reference, adapter.digest), (adapter.task,), adapter.labels)
