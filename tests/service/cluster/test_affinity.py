"""The choice of replicas: who moves when a replica leaves or joins, and how hot adapters spread."""

from __future__ import annotations

import random
from collections import Counter
from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from rootstock.loadtest.cluster.policy import RendezvousBounded
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


QUEUES = st.dictionaries(st.text(min_size=1, max_size=4), st.integers(0, 100), min_size=1)


@given(NAMES, QUEUES, st.integers())
def test_every_replica_is_tried_once_and_first_the_best_one_with_room(
    names: list[str], queues: dict[str, int], seed: int
) -> None:
    groups = AdapterAffinity(least=10).choose(names, queues, random.Random(seed))
    assert sorted(replica for group in groups for replica in group) == sorted(queues)
    most = max(10, ceil(1.5 * (sum(queues.values()) + 1) / len(queues)))
    first = next(replica for replica in ranking(names, list(queues)) if queues[replica] + 1 <= most)
    assert groups[0] == [first]


@given(st.lists(NAMES, min_size=1, max_size=60), st.integers(1, 6))
def test_no_replica_gets_more_than_its_bounded_share_however_popular_an_adapter_is(
    requests: list[list[str]], replicas: int
) -> None:
    queues = dict.fromkeys((f"replica-{i}" for i in range(replicas)), 0)
    for names in requests:
        queues[AdapterAffinity(least=2).choose(names, queues, random.Random(0))[0][0]] += 1
        assert max(queues.values()) <= max(2, ceil(1.5 * sum(queues.values()) / replicas))


def test_all_replicas_busy_alike_are_no_reason_to_load_an_adapter_elsewhere() -> None:
    queues = dict.fromkeys(("a", "b", "c", "d"), 500)
    home = ranking(["one"], list(queues))[0]
    assert AdapterAffinity().choose(["one"], queues, random.Random(0))[0] == [home]


def test_the_simulation_of_replicas_bounds_loads_as_the_router_does() -> None:
    dice = random.Random(1)
    simulated = RendezvousBounded(adapters=50, replicas=5, seed=0)
    for _ in range(500):
        waiting = [dice.randrange(40) for _ in range(5)]
        adapter = dice.randrange(50)
        most = AdapterAffinity().bound({str(i): queue for i, queue in enumerate(waiting)})
        room = [i for i in simulated.first(adapter, range(5), 5) if waiting[i] + 1 <= most]
        assert simulated.choose(adapter, waiting, range(5)) == room[0]


def test_a_request_that_names_no_adapter_goes_to_any_two() -> None:
    queues = dict.fromkeys("abcde", 0)
    pairs = {tuple(sorted(AdapterAffinity().choose([], queues, random.Random(i))[0])) for i in range(300)}
    assert len(pairs) == 10
