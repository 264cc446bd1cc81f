"""The scenarios by name."""

from __future__ import annotations

from collections.abc import Callable

from rootstock.loadtest.load.outcome import Outcome
from rootstock.loadtest.load.preparation import ScenarioSetup
from rootstock.loadtest.scenarios.churn import churn
from rootstock.loadtest.scenarios.cold import cold
from rootstock.loadtest.scenarios.many import many
from rootstock.loadtest.scenarios.noisy_neighbour import noisy_neighbour
from rootstock.loadtest.scenarios.ramp import ramp
from rootstock.loadtest.scenarios.soak import soak
from rootstock.loadtest.scenarios.steady import steady

RUN: dict[str, Callable[[ScenarioSetup], Outcome]] = {
    "steady": steady,
    "ramp": ramp,
    "many": many,
    "churn": churn,
    "cold": cold,
    "noisy-neighbour": noisy_neighbour,
    "soak": soak,
}
