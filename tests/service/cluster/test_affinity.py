"""The choice of replicas: who moves when a replica leaves or joins, and how hot adapters spread."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from rootstock.service.cluster.affinity import AdapterAffinity, ranking

REPLICAS = st.lists(st.text("0123456789abcdef", min_size=4, max_size=8), min_size=1, max_size=12, unique=True)
NAMES = st.lists(st.text("abcxyz-09", min_size=1, max_size=6), min_size=1, max_size=4, unique=True)


@given(NAMES, REPLICAS, st.randoms())
def test_every_process_ranks_alike_whatever_the_order_of_replicas_and_names(
    names: list[str], replicas: list[str], dice: random.Random
) -> None:
    ranked = ranking(names, replicas)
    assert sorted(ranked) == sorted(replicas)
    dice.shuffle(names)
    dice.shuffle(replicas)
    assert ranking(names, replicas) == ranked


@given(st.text(min_size=1, max_size=8), REPLICAS, st.data())
def test_a_replica_that_leaves_moves_only_its_own_adapters_each_to_its_second_choice(
    name: str, replicas: list[str], data: st.DataObject
) -> None:
    gone = data.draw(st.sampled_from(replicas))
    left = [replica for replica in replicas if replica != gone]
    assert ranking([name], left) == [replica for replica in ranking([name], replicas) if replica != gone]


@given(NAMES, REPLICAS)
def test_a_request_for_several_adapters_goes_where_most_of_them_lie(
    names: list[str], replicas: list[str]
) -> None:
    homes = Counter(ranking([name], replicas)[0] for name in names)
    assert homes[ranking(names, replicas)[0]] == max(homes.values())


def test_adapters_lie_evenly_on_the_replicas() -> None:
    replicas = [f"replica-{i}" for i in range(4)]
    homes = Counter(ranking([f"adapter-{i}"], replicas)[0] for i in range(4000))
    # Four standard deviations of a fair die.
    assert all(abs(count - 1000) < 4 * (4000 * 0.25 * 0.75) ** 0.5 for count in homes.values())


@given(NAMES, st.dictionaries(st.text(min_size=1, max_size=4), st.integers(0, 100), min_size=1), st.integers())
def test_every_replica_is_tried_once_and_the_home_of_an_adapter_first_unless_it_is_hot(
    names: list[str], queues: dict[str, int], seed: int
) -> None:
    rule = AdapterAffinity(spread=2, hot=10)
    groups = rule.choose(names, queues, random.Random(seed))
    assert sorted(replica for group in groups for replica in group) == sorted(queues)
    home = ranking(names, list(queues))[0]
    hot = queues[home] > 10 and queues[home] > 1.25 * sum(queues.values()) / len(queues)
    if not hot or len(queues) == 1:
        assert groups[0] == [home]
    else:
        assert set(groups[0]) == set(ranking(names, list(queues))[:2])


def test_all_replicas_busy_alike_are_no_reason_to_load_an_adapter_elsewhere() -> None:
    queues = dict.fromkeys(("a", "b", "c", "d"), 500)
    home = ranking(["one"], list(queues))[0]
    assert all(AdapterAffinity().choose(["one"], queues, random.Random(i))[0] == [home] for i in range(50))


def test_a_request_that_names_no_adapter_goes_to_any_two() -> None:
    queues = dict.fromkeys("abcde", 0)
    pairs = {tuple(sorted(AdapterAffinity().choose([], queues, random.Random(i))[0])) for i in range(300)}
    assert len(pairs) == 10
