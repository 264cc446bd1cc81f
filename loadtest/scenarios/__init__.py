"""Load tests that check every answer, by name; catalogue.py runs them."""

SCENARIOS = {
    "steady": "all kinds of request",
    "ramp": "to the knee and past it",
    "many": "10 to 10,000 adapters",
    "churn": "a version published or activated each second",
    "cold": "every request a cold adapter",
    "noisy-neighbour": "one adapter floods",
    "soak": "30 min, memory's slope",
}
