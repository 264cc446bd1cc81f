"""A home folder with random adapters of the chat foundation, and the texts to expect from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rootstock.adapters.bundle import Limits, open_bundle
from rootstock.adapters.foundation.architecture import describe
from rootstock.adapters.foundation.location import locate
from rootstock.adapters.spec import FoundationSpec
from rootstock.loadtest.fixtures.lora_folder import write_lora_folder
from rootstock.loadtest.fixtures.random_lora import LoraKind, random_adapters
from rootstock.loadtest.fixtures.registration import bundle_of, digests_of, name_of, register
from rootstock.loadtest.fixtures.setup import BenchmarkSetup
from rootstock.loadtest.judgement.oracle import Oracle, OracleVersion
from rootstock.loadtest.judgement.text_oracle import PeftTextOracle
from rootstock.loadtest.load.plan import Move
from rootstock.loadtest.load.preparation import ScenarioFixture
from rootstock.loadtest.measure.agreement import Disagreement

# Smaller weights leave many answers alike; at 0.1 the answers are no language any more.
KIND = LoraKind(8, None, 0.07)
_MOVING = 4


@dataclass(frozen=True)
class ChatNeeds:
    """The needs of a chat scenario: adapters to register, versions to publish later, texts, tokens an answer.

    `moves` versions are published for the first names in turn. Each adapter gets `texts_each` of the `texts`, and
    every adapter gets the first text.
    """

    adapters: int
    moves: int
    texts: Sequence[str]
    texts_each: int
    max_tokens: int


@contextmanager
def chat_fixture(setup: BenchmarkSetup, needs: ChatNeeds, foundation: str = "chat") -> Iterator[ScenarioFixture]:
    """Register adapters offline and compute their answers with PEFT; remove all of it at the end."""
    # The server runs the folder, whose name differs from a named foundation's. A bundle holds that name.
    files = locate(str(locate(foundation).folder))
    spec = describe(files)
    with TemporaryDirectory(prefix="rootstock-bench-") as root:
        folder = Path(root)
        home = folder / "home"
        home.mkdir()
        setup.say(f"registering {needs.adapters} adapters of {foundation}")
        adapters = _write_adapters(folder, spec, needs.adapters + needs.moves)
        names = register(home, spec, needs.adapters, setup.say, lambda i: _files_of(adapters[i]))
        moves = _moves(folder, spec, needs, adapters)
        versions = [*digests_of(home, names).items(), *((move.name, move.digest) for move in moves)]
        setup.say("computing the answers to expect, with PEFT's generate")
        answers = _answers(files.folder, dict(zip(versions, adapters, strict=True)), needs)
        oracle = Oracle(needs.texts, answers, spec.fingerprint, max_tokens=needs.max_tokens)
        yield ScenarioFixture(folder, names, moves, oracle, {"PRECISION": "fp32"}, str(files.folder))


def _answers(
    foundation: Path, versions: Mapping[tuple[str, str], Path], needs: ChatNeeds
) -> dict[str, OracleVersion]:
    """Return the answers by digest of versions, each a name and a digest with its PEFT folder.

    Raise Disagreement if most versions answer the first text alike: an answer by another one would not be seen.
    """
    peft = PeftTextOracle(foundation, needs.max_tokens)
    places = {name: i for i, name in enumerate(dict.fromkeys(name for name, _ in versions))}
    numbers = dict.fromkeys(places, 0)
    known: dict[str, OracleVersion] = {}
    for (name, digest), folder in versions.items():
        numbers[name] += 1
        # The same texts for every version of a name: the text then shows an answer by another version too.
        first = places[name] * needs.texts_each
        indices = sorted({0, *((first + k) % len(needs.texts) for k in range(needs.texts_each))})
        answers = peft.answers(folder, [needs.texts[i] for i in indices])
        known[digest] = OracleVersion(name, numbers[name], answers=dict(zip(indices, answers, strict=True)))
    distinct = len({version.answers[0].text for version in known.values()})
    if 2 * distinct < len(known):
        raise Disagreement(f"{len(known)} versions give {distinct} different answers to the first text")
    return known


def _write_adapters(folder: Path, spec: FoundationSpec, count: int) -> list[Path]:
    folders = []
    for name, adapter in random_adapters(spec, KIND, count).items():
        folders.append(folder / name)
        write_lora_folder(adapter, spec, folders[-1])
    return folders


def _files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _moves(folder: Path, spec: FoundationSpec, needs: ChatNeeds, adapters: list[Path]) -> list[Move]:
    """Return new versions of the first names, in turn."""
    moves = []
    for i in range(needs.moves):
        data = bundle_of(_files_of(adapters[needs.adapters + i]), spec)
        path = folder / f"move-{i}.zip"
        path.write_bytes(data)
        name = name_of(i % min(_MOVING, needs.adapters))
        moves.append(Move(name, open_bundle(data, Limits(), spec).digest, str(path)))
    return moves
