"""The scenarios by name."""

from __future__ import annotations

from collections.abc import Callable

from loadtest.scenarios.churn import churn
from loadtest.scenarios.cold import cold
from loadtest.scenarios.many import many
from loadtest.scenarios.noisy_neighbour import noisy_neighbour
from loadtest.scenarios.outcome import Outcome
from loadtest.scenarios.prepared import Setup
from loadtest.scenarios.ramp import ramp
from loadtest.scenarios.soak import soak
from loadtest.scenarios.steady import steady

RUN: dict[str, Callable[[Setup], Outcome]] = {
    "steady": steady,
    "ramp": ramp,
    "many": many,
    "churn": churn,
    "cold": cold,
    "noisy-neighbour": noisy_neighbour,
    "soak": soak,
}
