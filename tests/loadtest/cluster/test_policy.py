"""Adapters keep their replicas, and hot ones get more than one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootstock.loadtest.cluster.policy import (
    LeastOutstanding,
    Rendezvous,
    RendezvousBounded,
    RendezvousTwoChoices,
    RoundRobin,
    rankings,
)

ADAPTERS = 2000


@settings(max_examples=20, deadline=None)
@given(replicas=st.integers(2, 40), seed=st.integers(0, 1000), data=st.data())
def test_only_the_adapters_of_a_replica_that_leaves_move(replicas: int, seed: int, data: st.DataObject) -> None:
    policy = Rendezvous(ADAPTERS, replicas, seed)
    waiting, everyone = [0] * replicas, list(range(replicas))
    gone = data.draw(st.sampled_from(everyone))
    rest = [replica for replica in everyone if replica != gone]
    before = [policy.choose(adapter, waiting, everyone) for adapter in range(ADAPTERS)]
    after = [policy.choose(adapter, waiting, rest) for adapter in range(ADAPTERS)]
    moved = [adapter for adapter in range(ADAPTERS) if before[adapter] != after[adapter]]
    assert moved == [adapter for adapter in range(ADAPTERS) if before[adapter] == gone]
    # A share of 1/N, within five standard deviations of a binomial distribution.
    expected = ADAPTERS / replicas
    assert abs(len(moved) - expected) < 5 * np.sqrt(expected)


def test_every_order_of_replicas_is_about_as_likely() -> None:
    orders, counts = np.unique(rankings(60_000, 3, 0), axis=0, return_counts=True)
    assert len(orders) == 6
    assert counts == pytest.approx(np.full(6, 10_000), rel=0.05)


def test_a_hot_replica_shares_its_adapter_with_the_next_ones_of_the_ranking() -> None:
    two, bounded = RendezvousTwoChoices(10, 8, 0, spread=3), RendezvousBounded(10, 8, 0)
    everyone = list(range(8))
    ranked = two.first(7, everyone, 8)
    waiting = [4] * 8
    assert two.choose(7, waiting, everyone) == bounded.choose(7, waiting, everyone) == ranked[0]
    waiting[ranked[0]] = 40
    assert {two.choose(7, waiting, everyone) for _ in range(50)} <= set(ranked[:3]) - {ranked[0]}
    assert bounded.choose(7, waiting, everyone) == ranked[1]
    waiting[ranked[1]] = 40
    assert bounded.choose(7, waiting, everyone) == ranked[2]


def test_the_other_policies_do_what_their_names_say() -> None:
    turn, least = RoundRobin(), LeastOutstanding()
    assert [turn.choose(0, [0] * 3, [0, 2]) for _ in range(4)] == [0, 2, 0, 2]
    assert least.choose(0, [3, 1, 2], [0, 1, 2]) == 1
    assert least.choose(0, [3, 1, 2], [0, 2]) == 2
    assert sorted(least.choose(0, [1, 1, 1], [0, 1, 2]) for _ in range(3)) == [0, 1, 2]
