"""A plan for the load generator: phases one after another, and the traffic in them. Kept as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Phase:
    """A stretch of load. Phases with the same `name` are counted together.

    `users`: clients that send the next request when they have their answer. `rate`: arrivals a second, however
    fast the server answers. `of_capacity`: the same, as a share of the rate of the phase that `calibrates`.
    `moves_s`: versions published or activated a second. `flood`: clients of the flooding adapter. `popularity`
    replaces the plan's.
    """

    name: str
    seconds: float
    users: int = 0
    rate: float = 0.0
    of_capacity: float = 0.0
    calibrates: bool = False
    moves_s: float = 0.0
    flood: int = 0
    popularity: str = ""


@dataclass(frozen=True)
class Move:
    """A version to publish under `name`: its digest and the file of its bundle. It becomes live."""

    name: str
    digest: str
    bundle: str


@dataclass(frozen=True)
class LoadPlan:
    """The load generator's input, apart from the answers to expect.

    `names`: the adapters in order of popularity. `mix`: kinds of request by weight. `inputs`: texts a request.
    `flooding`: the adapter that floods, none of `names`.
    """

    url: str
    names: Sequence[str]
    phases: Sequence[Phase]
    mix: Mapping[str, float]
    popularity: str = "zipf"
    inputs: int = 1
    flooding: str = ""
    flood_inputs: int = 8
    moves: Sequence[Move] = ()
    seed: int = 0

    def write(self, path: Path) -> None:
        """Write the plan as JSON."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @staticmethod
    def read(path: Path) -> LoadPlan:
        """Return the plan that `write` wrote."""
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        phases = [Phase(**phase) for phase in content.pop("phases")]
        moves = [Move(**move) for move in content.pop("moves")]
        return LoadPlan(**content, phases=phases, moves=moves)
