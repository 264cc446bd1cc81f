"""The versions in a home's registry that aliases and splits point to, for one foundation, with golden sets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from rootstock.adapters.bundle import Golden, Limits, open_bundle
from rootstock.adapters.errors import AdapterError, explained
from rootstock.adapters.foundation.weights import FoundationWeights
from rootstock.adapters.home.home import Home, shared_registry, shared_store
from rootstock.adapters.registry.port import Registry
from rootstock.adapters.spec import Adapter, FoundationSpec, Rejected

_PAGE = 500

# Takes the number of versions that are done, and their total.
Progress = Callable[[int, int], None]


class PointedVersion(NamedTuple):
    """An adapter with its golden set, under all its references in one text."""

    name: str
    adapter: Adapter
    golden: Golden | None


class PointedVersions:
    """The versions that aliases point to, and the candidates of splits.

    The home is only read, so a server may use it at the same time.

    `not_checked` maps the references of versions that a check leaves out to the reason.
    """

    def __init__(
        self, home: Path, foundation: Path, spec: FoundationSpec, limits: Limits, passed_in: str | None = None
    ) -> None:
        """Take the foundation's folder as `foundation`.

        A version that a server in the precision `passed_in` has verified is left out.
        """
        self._home = home
        self._spec = spec
        self._limits = limits
        self.base = FoundationWeights(foundation, spec.model_type)
        self.not_checked: dict[str, str] = {}
        self._references = _references(home, spec.fingerprint, passed_in)

    def leave_out(self, digests: Collection[str]) -> None:
        """Leave out the versions with these digests."""
        self._references = {d: names for d, names in self._references.items() if d not in digests}

    def __len__(self) -> int:
        return len(self._references)

    def open(self, progress: Progress) -> Iterator[PointedVersion]:
        """Yield the versions one after the other. One that cannot be opened is not checked."""
        store = Home(self._home).open_store(shared_store())
        for done, (digest, references) in enumerate(self._references.items()):
            progress(done, len(self))
            name = ", ".join(references)
            try:
                bundle = open_bundle(store.get(digest), self._limits, self._spec)
                adapter = bundle.adapter(self._spec, self._limits.max_rank, self.base)
            except (Rejected, AdapterError) as error:
                self.not_checked[name] = explained(error)
            else:
                yield PointedVersion(name, adapter, bundle.golden())


def _references(home: Path, foundation: str, passed_in: str | None) -> dict[str, list[str]]:
    """Return the references that aliases point to, for this foundation, by digest.

    Those whose record names the precision `passed_in` are left out.
    """
    references_of: dict[str, dict[str, None]] = defaultdict(dict)
    if shared_registry() or Home(home).registry_file.exists():
        with closing(Home(home).open_registry(shared_registry())) as registry:
            for name, versions in _aliased(registry):
                for number in versions:
                    version = registry.version(name, number)
                    passed = passed_in is not None and version.verification.get("precision") == passed_in
                    if version.foundation in (None, foundation) and not passed:
                        references_of[version.digest][f"{name}@{number}"] = None
    return {digest: list(references) for digest, references in references_of.items()}


def _aliased(registry: Registry) -> Iterator[tuple[str, list[int]]]:
    after: str | None = None
    while True:
        page = registry.list(_PAGE, after)
        for name in [adapter.name for adapter in page.adapters]:
            adapter = registry.show(name)
            candidates = (version for shares in adapter.splits.values() for version in shares)
            yield name, sorted({*adapter.aliases.values(), *candidates})
        if (after := page.next) is None:
            return
