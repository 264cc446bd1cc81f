"""A home folder with registered adapters, and the answers to expect from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from rootstock.adapters.bundle import Limits, open_bundle
from rootstock.adapters.spec import FoundationSpec
from rootstock.loadtest.fixtures.registration import digests_of, name_of, register
from rootstock.loadtest.fixtures.setup import BenchmarkSetup
from rootstock.loadtest.fixtures.workload import WHOLE, folder_of, zip_of
from rootstock.loadtest.judgement.oracle import Oracle, OracleVersion, PeftOracle
from rootstock.loadtest.load.plan import Move
from rootstock.loadtest.load.texts import real_texts
from rootstock.service.engine.runners.onnx.runner import OnnxRunner


@dataclass(frozen=True)
class Needs:
    """The needs of a scenario: adapters to register, versions to publish later, and texts.

    `moves` versions are published for the first `moving` names in turn. Each adapter gets `texts_each` of the
    `texts`, and every adapter gets the first text. Queued inputs then differ, since the server computes equal
    inputs once. The scores of the first `scored` adapters are known, of the others the digest alone. `settings`
    are the server's.
    """

    adapters: int
    moves: int = 0
    moving: int = 4
    texts: int = 128
    texts_each: int = 8
    scored: int | None = None
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ScenarioFixture:
    """The home, the adapters' names in order, the moves to make, and the answers to expect."""

    folder: Path
    names: list[str]
    moves: list[Move]
    oracle: Oracle
    settings: Mapping[str, str]
    foundation: str = "default"

    @property
    def home(self) -> Path:
        """Return the server's home folder."""
        return self.folder / "home"


@contextmanager
def scenario_fixture(setup: BenchmarkSetup, needs: Needs) -> Iterator[ScenarioFixture]:
    """Register adapters offline and compute their answers with PEFT; remove all of it at the end."""
    with TemporaryDirectory(prefix="rootstock-bench-") as root:
        folder = Path(root)
        home = folder / "home"
        home.mkdir()
        spec = OnnxRunner(setup.export, 3, 1).spec
        setup.say(f"registering {needs.adapters} adapters")
        names = register(home, spec, needs.adapters, setup.say)
        digests = digests_of(home, names)
        moves = _moves(folder, spec, needs)
        setup.say("computing the answers to expect, with PEFT")
        yield ScenarioFixture(folder, names, moves, _oracle(setup, spec, needs, digests, moves), needs.settings)


def _moves(folder: Path, spec: FoundationSpec, needs: Needs) -> list[Move]:
    """Return new versions. Their weights are those of the adapters after the registered ones."""
    moves = []
    for i in range(needs.moves):
        data = zip_of(folder_of(spec, WHOLE, needs.adapters + i))
        path = folder / f"move-{i}.zip"
        path.write_bytes(data)
        name = name_of(i % min(needs.moving, needs.adapters))
        moves.append(Move(name, open_bundle(data, Limits(), spec).digest, str(path)))
    return moves


def _oracle(
    setup: BenchmarkSetup, spec: FoundationSpec, needs: Needs, digests: Mapping[str, str], moves: list[Move]
) -> Oracle:
    texts = real_texts(needs.texts)
    peft = PeftOracle(setup.foundation, spec)
    versions: dict[str, OracleVersion] = {}
    numbers: dict[str, int] = {}
    bundles = [(name, digest) for name, digest in digests.items()] + [(m.name, m.digest) for m in moves]
    places = {name: i for i, name in enumerate(digests)}
    scored = needs.adapters if needs.scored is None else needs.scored
    for bundle, (name, digest) in enumerate(bundles):
        numbers[name] = numbers.get(name, 0) + 1
        # The same texts for every version of a name: the scores then show an answer by another version too.
        first = places[name]
        indices = sorted({0, *((first * needs.texts_each + k) % len(texts) for k in range(needs.texts_each))})
        known = bundle < scored or bundle >= needs.adapters
        answers = peft.scores(bundle, [texts[i] for i in indices]) if known else []
        versions[digest] = OracleVersion(name, numbers[name], dict(zip(indices, answers, strict=False)))
    return Oracle(texts, versions, spec.fingerprint, peft.embeddings(texts))
