"""The models of other libraries that `push` and `convert` turn into bundles first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rootstock.adapters.cli.output import fail, failures, in_options

if TYPE_CHECKING:
    from rootstock.adapters.sources.source_bundle import SourceBundle


@dataclass(frozen=True)
class SourceArguments:
    """The arguments of a command that takes a model of another library."""

    rank: str
    max_difference: float
    texts: Path | None
    trust_pickle: bool
    foundation: str | None

    @property
    def largest_rank(self) -> int | None:
        """Return the rank, None for `auto`; exit with code 2 for any other text."""
        if self.rank == "auto":
            return None
        if not self.rank.isascii() or not self.rank.isdigit() or int(self.rank) < 1:
            fail(f"--rank is {self.rank!r}; give a whole number of at least 1, or auto", 2)
        return int(self.rank)


@dataclass(frozen=True)
class LocatedSource:
    """A path on this machine. For a model of the hub, `provenance` holds its repository and commit."""

    path: Path
    name: str
    provenance: dict[str, Any]

    @property
    def lines(self) -> list[str]:
        """Return a line that names the commit of a model of the hub."""
        if not self.provenance:
            return []
        return [f"from the hub: {self.provenance['repo']} at commit {self.provenance['commit']}"]


def located(text: str, trust_pickle: bool) -> LocatedSource:
    """Return the path of a file, a folder, or `org/name@revision` of the hub, which is fetched.

    Exit with code 2 for a path that does not exist, and with code 1 if the hub cannot give the model.
    """
    path = Path(text)
    if path.exists():
        return LocatedSource(path, path.resolve().name if path.is_dir() else path.stem, {})
    from rootstock.adapters.sources.hub import fetch, is_hub_reference

    text = text.removeprefix("hf://")
    if not is_hub_reference(text):
        fail(f"{text} does not exist; give a file, a folder, or org/name@revision of the Hugging Face hub", 2)
    with failures(), _busy(f"fetching {text}"):
        model = fetch(text, trust_pickle)
    name = model.repo.partition("/")[2].lower()
    return LocatedSource(model.folder, name, {"repo": model.repo, "commit": model.commit})


def source_bundle(
    found: LocatedSource, plain: Mapping[str, Any], arguments: SourceArguments
) -> SourceBundle | None:
    """Return the bundle of a model of another library; None if the path holds an adapter.

    `plain` holds the fields of PlainFields that the command's options set. Exit with code 1 if the model cannot
    become an adapter of the foundation, and with code 2 if the foundation cannot be used.
    """
    from rootstock.adapters.sources.kinds import kind_of

    rank = arguments.largest_rank
    if (kind := kind_of(found.path)) is None:
        return None
    from rootstock.adapters.bundle import PlainFields
    from rootstock.adapters.foundation.location import FoundationError, locate
    from rootstock.adapters.home.offline import describe_in
    from rootstock.adapters.sources.kinds import open_source
    from rootstock.adapters.sources.source_bundle import SourceOptions, bundle_of
    from rootstock.adapters.spec import Rejected

    try:
        with failures(), _busy(f"converting the {kind} in {found.path}"):
            files = locate(arguments.foundation or "default")
            spec = describe_in(None, files)
            source = open_source(found.path, spec.lowercases, arguments.trust_pickle)
            provenance = {"source": found.provenance} if found.provenance else {}
            options = SourceOptions(rank, arguments.max_difference, provenance=provenance)
            if arguments.texts is not None:
                options = replace(options, texts=_lines(arguments.texts))
            return bundle_of(source, files, spec, PlainFields(**plain), options)
    except FoundationError as error:
        fail(str(error), 2)
    except Rejected as error:
        fail(in_options(f"cannot convert {found.path}: {error}"))


def conversion_lines(made: SourceBundle) -> list[str]:
    """Return lines on a conversion for people: the kind, the measured difference and what was left out."""
    figures = made.figures
    lines = [f"made from a {made.kind}"]
    if figures and figures["rank"] == 0:
        lines[0] += "; its layers are the foundation's"
    elif figures:
        lines[0] += (
            f", as a LoRA of rank {figures['rank']}; its outputs differ by at most "
            f"{figures['max_difference']:.2g} of the largest output"
        )
    if left_out := figures.get("left_out"):
        lines.append(f"{len(left_out)} changed parameters stay as in the foundation: {', '.join(left_out[:3])} …")
    if made.ignored:
        lines.append(f"ignored: {', '.join(made.ignored)}")
    return lines


def _lines(path: Path) -> list[str]:
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    if not any(lines):
        fail(f"{path} holds no text; give one text a line", 2)
    return list(filter(None, lines))


@contextmanager
def _busy(text: str) -> Iterator[None]:
    """Show a spinner with a text on stderr, on a terminal only."""
    from rich.console import Console

    console = Console(stderr=True, markup=False, highlight=False)
    if not console.is_terminal:
        yield
        return
    with console.status(text):
        yield
