"""The queue loses nothing, starves nobody, shares by tokens, and its batches keep their limits."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count, cycle
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootstock.service.engine.core.request import Request
from rootstock.service.engine.core.work import PRIORITIES, Priority
from rootstock.service.engine.encode.batch import Row
from rootstock.service.engine.encode.modalities.text import TextSample
from rootstock.service.engine.encode.packing import SHARED_ROWS, SHARED_TOKENS, BatchLimits
from rootstock.service.engine.encode.queue import VERIFY_AFTER, WINDOW, Queue
from tests.service.engine.fakes import make_adapter

LIMITS = BatchLimits(rows=6, tokens=1024, padding=0.25)
LONGEST = 512
# Lengths far apart and close together, so that padding decides often.
LENGTHS = st.one_of(st.integers(3, LONGEST), st.sampled_from([16, 17, 18, 20]))
PRIORITY = st.sampled_from(list(PRIORITIES))
NUMBERS = count()
# What the queue's docstring calls W and L, in units of virtual time: a quarter of a token of normal priority.
W = WINDOW * LIMITS.tokens * PRIORITIES["normal"]
L = LONGEST * PRIORITIES["low"]


adapter = lru_cache(make_adapter)


def make_row(
    digest: str,
    length: int = 16,
    verifying: bool = False,
    gone: bool = False,
    tenant: str = "",
    priority: Priority = "normal",
    text: int | None = None,
    flow: str = "",
) -> Row:
    """A row whose input no other has, unless `text` numbers it."""
    request = Request(adapter(digest), [""], {}, 0.0, 0.0, tenant, priority, verifying, flow=flow)
    if gone:
        request.progress.leave()
    ids = [0] * (length - 1) + [next(NUMBERS) if text is None else -text]
    return Row(request, 0, TextSample(ids, [0] * length, None, "", 0))  # type: ignore[arg-type]


def make_queue(rows: Sequence[Row] = (), limits: BatchLimits = LIMITS) -> Queue:
    queue = Queue(limits)
    put(queue, rows)
    return queue


def put(queue: Queue, rows: Sequence[Row]) -> None:
    for row in rows:
        queue.put(row)


def is_gone(row: Row) -> bool:
    return row.request.progress.left


def always(row: Row) -> bool:
    return True


def take(queue: Queue) -> list[str]:
    """The adapters of the next batch's rows."""
    return [row.digest for row in queue.take(always, is_gone)]


def virtual(row: Row) -> int:
    return row.cost * PRIORITIES[row.request.priority]


def check_limits(batch: Sequence[Row], limits: BatchLimits) -> None:
    lengths = list({row.key: row.cost for row in batch}.values())
    assert len(lengths) <= limits.rows
    assert len(batch) <= SHARED_ROWS * limits.rows
    if len(lengths) > 1:
        padded = len(lengths) * max(lengths)
        assert padded <= limits.tokens
        assert padded - sum(lengths) <= limits.padding * padded
    if len(batch) > 1:
        assert len(batch) * max(lengths) <= SHARED_TOKENS * limits.tokens
    assert all(count <= limits.rows for count in Counter(row.digest for row in batch).values())


@dataclass
class Put:
    rows: list[tuple[str, int, bool]]


@dataclass
class Leave:
    picks: list[int]
    purge: bool


@dataclass
class Take:
    refused: set[str]
    full_after: int


DIGESTS = st.one_of(st.sampled_from("ABCDEFGH"), st.just("A"))
PUTS = st.builds(
    Put,
    st.one_of(
        st.lists(st.tuples(DIGESTS, LENGTHS, st.integers(0, 9).map(lambda n: n == 0)), max_size=12),
        st.lists(st.tuples(st.just("A"), LENGTHS, st.just(False)), min_size=20, max_size=40),
    ),
)
LEAVES = st.builds(Leave, st.lists(st.integers(0, 200), max_size=10), st.booleans())
TAKES = st.builds(Take, st.one_of(st.just(set()), st.sets(st.sampled_from("ABCDEFGH"))), st.integers(1, 8))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(PUTS, LEAVES, TAKES), max_size=30))
def test_no_row_is_lost_or_doubled_and_every_batch_keeps_its_limits_and_the_order_of_a_line(
    steps: list[Put | Leave | Take],
) -> None:
    queue = make_queue()
    lines: dict[tuple[str, bool, int], deque[Row]] = {}
    given: list[Row] = []
    taken: list[Row] = []

    def take(refused: set[str], most: int) -> list[Row]:
        asked: Counter[str] = Counter()
        placed: set[str] = set()

        def place(row: Row) -> bool:
            assert not is_gone(row), "a row that nobody waits for is not placed"
            asked[row.digest] += 1
            if row.digest in refused or len(placed) >= most:
                return False
            placed.add(row.digest)
            return True

        batch = queue.take(place, is_gone)
        assert {r.digest for r in batch} <= placed, "who is not placed is not taken"
        assert batch or not placed
        assert all(n <= 2 for n in asked.values()), "asked once an adapter, and once more for verification"
        check_limits(batch, LIMITS)
        assert len(queue) == len(list(queue))
        assert len({r.request.verifying for r in batch}) <= 1, "verification runs by itself"
        for row in batch:
            line = lines[row.digest, row.request.verifying, row.cost]
            while is_gone(line[0]):
                line.popleft()
            assert line.popleft() is row, "first come, first served within an adapter's rows of one length"
        taken.extend(batch)
        return batch

    for step in steps:
        if isinstance(step, Put):
            rows = [make_row(*row) for row in step.rows]
            put(queue, rows)
            given.extend(rows)
            for row in rows:
                lines.setdefault((row.digest, row.request.verifying, row.cost), deque()).append(row)
        elif isinstance(step, Leave):
            waiting = list(queue)
            for pick in step.picks:
                if pick < len(waiting):
                    waiting[pick].request.progress.leave()
            if step.purge:
                queue.purge(is_gone)
                assert not any(is_gone(row) for row in queue)
        else:
            take(step.refused, step.full_after)
        assert len(queue) == len(list(queue))
    while take(set(), 8):
        pass
    assert len(queue) == 0
    assert len({id(r) for r in taken}) == len(taken)
    assert {id(r) for r in taken} | {id(r) for r in given if is_gone(r)} == {id(r) for r in given}


FLOODS = st.lists(
    st.lists(st.tuples(st.sampled_from("ABCDEF"), LENGTHS, st.sampled_from("xyz"), PRIORITY), max_size=16),
    min_size=1,
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(
    flood=FLOODS,
    own=st.lists(LENGTHS, min_size=1, max_size=12),
    priority=PRIORITY,
    refused=st.sets(st.sampled_from("ABCDEF")),
)
def test_while_a_row_is_the_first_of_its_line_no_line_and_no_tenant_runs_more_than_the_bound(
    flood: list[list[tuple[str, int, str, Priority]]], own: list[int], priority: Priority, refused: set[str]
) -> None:
    """The docstring's bound, in units of virtual time. The flood never ends; the row's own line has rows of other
    lengths behind it, which may overtake it.
    """

    def wave(i: int) -> list[Row]:
        return [make_row(d, n, tenant=t, priority=p) for d, n, t, p in flood[i % len(flood)]]

    def place(row: Row) -> bool:
        return row.digest not in refused

    queue = make_queue(wave(0))
    for i in range(6):
        queue.take(place, is_gone)
        put(queue, wave(i))
    line = [make_row("me", n, tenant="x", priority=priority) for n in own]
    put(queue, line)
    waiting, batches = line, 0
    lines: Counter[object] = Counter()
    tenants: Counter[str] = Counter()
    while waiting:
        batches += 1
        batch = queue.take(place, is_gone)
        for row in batch:
            tenants[row.request.tenant] += row.cost
            if row.request.tenant == "x":
                lines[row.digest, row.request.priority] += virtual(row)
        assert max(lines.values(), default=0) <= 2 * W + 3 * L
        for tenant in tenants:
            assert tenants[tenant] <= tenants["x"] + (2 * W + 3 * LONGEST * 4) / 4
        if waiting[0] in batch:
            lines.clear()
            tenants.clear()
        waiting = [row for row in waiting if row not in batch]
        put(queue, [*wave(batches), make_row("me", 3 + batches % 40, tenant="x", priority=priority)])


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.tuples(st.sampled_from("ABCD"), PRIORITY), st.lists(LENGTHS, min_size=1, max_size=6)))
def test_adapters_that_always_wait_run_tokens_in_the_proportion_of_their_weights(
    lengths: dict[tuple[str, Priority], list[int]],
) -> None:
    queue = make_queue()
    numbers = count()

    def fill(line: tuple[str, Priority], rows: int) -> None:
        sizes = lengths[line]
        put(queue, [make_row(line[0], sizes[next(numbers) % len(sizes)], priority=line[1]) for _ in range(rows)])

    had: Counter[object] = Counter()
    for line in lengths:
        fill(line, 30)
    for _ in range(40 if lengths else 0):
        for row in queue.take(always, is_gone):
            had[row.digest, row.request.priority] += virtual(row)
            fill((row.digest, row.request.priority), 1)
        shares = [had[line] for line in lengths]
        assert max(shares) - min(shares) <= W + 2 * L


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from("xyz"), st.lists(st.tuples(st.integers(0, 30), LENGTHS), min_size=1, max_size=30)
    )
)
def test_tenants_that_always_wait_run_the_same_tokens_however_many_adapters_they_use(
    floods: dict[str, list[tuple[int, int]]],
) -> None:
    queue = make_queue()
    had: Counter[str] = Counter()
    turn = count()

    def fill(tenant: str, rows: int) -> None:
        for _ in range(rows):
            digest, length = floods[tenant][next(turn) % len(floods[tenant])]
            queue.put(make_row(f"{tenant}{digest}", length, tenant=tenant))

    for tenant in floods:
        fill(tenant, 30)
    for _ in range(40 if floods else 0):
        for row in queue.take(always, is_gone):
            had[row.request.tenant] += row.cost * PRIORITIES["normal"]
            fill(row.request.tenant, 1)
        shares = [had[tenant] for tenant in floods]
        assert max(shares) - min(shares) <= W + 2 * LONGEST * PRIORITIES["normal"]


@pytest.mark.parametrize("flood", ["one adapter", "many adapters of another tenant"])
def test_a_newcomer_is_in_the_next_batch_however_much_others_have_waiting(flood: str) -> None:
    many = flood != "one adapter"
    queue = make_queue([make_row(f"A{i % 40 if many else 0}", 30, tenant="x" * many) for i in range(400)])
    for _ in range(5):
        queue.take(always, is_gone)
    queue.put(make_row("new", 200))
    assert "new" in take(queue)


def test_a_stream_of_new_adapters_does_not_starve_one_that_has_had_much() -> None:
    queue = make_queue([make_row("busy", 100) for _ in range(60)])
    for _ in range(5):
        assert set(take(queue)) == {"busy"}
    batches = []
    for i in range(120):
        put(queue, [make_row(f"new{i}.{j}", 100) for j in range(LIMITS.rows)])
        batches.append("busy" in take(queue))
    assert sum(batches) >= 3


def test_a_row_that_fits_no_other_is_not_passed_over_for_ever_by_its_own_line_s_other_rows() -> None:
    queue = make_queue([make_row("new", 4), make_row("A", 400), *[make_row("A", 4) for _ in range(600)]])
    assert [row.cost for row in queue.take(always, is_gone)] == [4] * LIMITS.rows, "passed over once"
    for i in range(60):
        queue.put(make_row(f"new{i}", 4))
        if any(row.cost == 400 for row in queue.take(always, is_gone)):
            return
    raise AssertionError("passed over sixty times")


@pytest.mark.parametrize(
    ("sizes", "odd", "even"),
    [([100, 7, 400, 25, 3, 210], 8, 5), ([100, 140], 2, 300)],
    ids=["comes again", "floods"],
)
def test_rows_of_one_length_are_not_served_at_the_cost_of_an_adapter_whose_rows_fit_worse(
    sizes: list[int], odd: int, even: int
) -> None:
    """One adapter always waits, with a few rows of other lengths. The other has ever so many waiting, or comes
    again with as many as fill a batch whenever it has none."""
    queue, lengths = make_queue(), cycle(sizes)
    had = Counter({"odd": 0, "even": 0})
    for _ in range(500):
        left = Counter(row.digest for row in queue)
        put(queue, [make_row("odd", next(lengths)) for _ in range(left["odd"], odd)])
        if not left["even"]:
            put(queue, [make_row("even", 100) for _ in range(even)])
        for row in queue.take(always, is_gone):
            had[row.digest] += row.cost
    assert had["even"] - had["odd"] <= (W + 2 * LONGEST * PRIORITIES["normal"]) / PRIORITIES["normal"]
    assert min(had.values()) > 20_000


@pytest.mark.parametrize("blocked", [False, True])
def test_one_row_at_a_time_does_not_keep_a_flood_from_filling_the_batch(blocked: bool) -> None:
    queue = make_queue([make_row("no slot", 20)] * blocked)
    put(queue, [make_row("flood", 20) for _ in range(2000)])
    rows = 0
    for _ in range(200):
        queue.put(make_row("single", 20))
        batch = [row.digest for row in queue.take(lambda row: row.digest != "no slot", is_gone)]
        assert batch.count("single") == 1
        rows += len(batch)
    assert rows == 200 * LIMITS.rows


def test_while_every_batch_takes_all_that_waits_nobody_gets_ahead() -> None:
    queue = make_queue()
    for _ in range(200):
        put(queue, [make_row("little"), *[make_row("much") for _ in range(LIMITS.rows - 1)]])
        assert len(take(queue)) == LIMITS.rows


def test_an_adapter_whose_rows_were_all_left_comes_again_behind_what_it_has_had() -> None:
    first = make_row("A", 400)
    queue = make_queue([make_row("new", 4), first, *[make_row("A", 4) for _ in range(5)]])
    assert take(queue) == ["new", *["A"] * 5]
    first.request.progress.leave()
    queue.purge(is_gone)
    put(queue, [make_row("A", 4), make_row("B", 4)])
    assert take(queue) == ["B", "A"]


def test_adapters_share_a_batch_in_turn() -> None:
    queue = make_queue([make_row("A") for _ in range(20)] + [make_row("B") for _ in range(2)] + [make_row("C")])
    assert take(queue) == list("ABCABA")


def test_a_high_row_s_line_runs_four_times_as_often_as_a_normal_one_s_and_sixteen_times_as_a_low_one_s() -> None:
    queue = make_queue([make_row(p, priority=p) for p in PRIORITIES for _ in range(400)])
    ran = Counter(digest for _ in range(70) for digest in take(queue))
    assert ran["high"] / ran["normal"] == pytest.approx(4, rel=0.1)
    assert ran["normal"] / ran["low"] == pytest.approx(4, rel=0.1)


def test_an_adapter_without_a_slot_for_long_does_not_take_every_turn_once_it_has_one() -> None:
    queue = make_queue([make_row(d, 64) for d in "AB" for _ in range(300)])
    while len(queue) > 300:
        queue.take(lambda row: row.digest == "B", is_gone)
    put(queue, [make_row("B", 64) for _ in range(300)])
    ran = [take(queue) for _ in range(30)]
    assert sum(len(batch) for batch in ran if "B" not in batch) <= (W + 2 * L) / PRIORITIES["normal"] / 64
    assert Counter(d for batch in ran[-8:] for d in batch)["B"] >= 8 * LIMITS.rows // 2 - 2


def test_adapters_that_get_no_slot_leave_the_batch_to_those_that_do() -> None:
    queue = make_queue([make_row(d) for d in [*"ABCDEFGH"] * 6 + ["me"] * 12])
    assert [r.digest for r in queue.take(lambda row: row.digest == "me", is_gone)] == ["me"] * LIMITS.rows


@pytest.mark.parametrize(
    ("clients", "adapters", "limits", "most"),
    [
        (32, 1, BatchLimits(), 0.21),
        (32, 32, BatchLimits(), 0.21),
        (256, 8, BatchLimits(), 0.17),
        (256, 8, BatchLimits(tokens=2048), 0.12),
    ],
)
def test_texts_of_natural_lengths_waste_little_on_padding_and_on_small_batches(
    clients: int, adapters: int, limits: BatchLimits, most: float
) -> None:
    """Each client sends its next text when it is answered; lengths are lognormal from 4 to 256 tokens. A batch
    costs its overhead and its tokens with padding; in the order of arrival a quarter to a third is wasted."""
    random = Random(1)

    def text(client: str) -> Row:
        return make_row(client, max(4, min(256, int(random.lognormvariate(3.5, 0.9)))))

    queue = make_queue([text(f"A{i % adapters}") for i in range(clients)], limits)
    tokens = cost = 0
    for _ in range(300):
        batch = queue.take(always, is_gone)
        tokens += sum(row.cost for row in batch)
        cost += limits.overhead + len(batch) * max(row.cost for row in batch)
        put(queue, [text(row.digest) for row in batch])
    assert 1 - tokens / cost < most


def test_a_row_longer_than_a_batch_runs_alone() -> None:
    queue = make_queue([make_row("A", 500), make_row("B", 500)], BatchLimits(rows=4, tokens=64))
    assert [take(queue), take(queue)] == [["A"], ["B"]]


def test_a_row_without_a_token_runs() -> None:
    queue = make_queue([make_row("A", 1)])
    (row,) = queue
    row.cost = 0
    assert take(queue) == ["A"]


def test_one_text_under_many_adapters_is_one_batch_whatever_else_of_its_tenant_waits() -> None:
    limits = BatchLimits()
    queue = make_queue([make_row("busy", n) for n in range(10, 110)], limits)
    fan = [make_row(f"F{i}", 256, text=1) for i in range(20)]
    put(queue, fan)
    batches = [queue.take(always, is_gone) for _ in range(2)]
    (mine,) = [batch for batch in batches if fan[0] in batch]
    assert set(fan) <= set(mine)
    assert len(fan) * 256 > limits.tokens, "more than the tokens of inputs held one by one"


def test_a_lone_line_gets_no_further_ahead_of_its_tenants_others_while_other_tenants_wait() -> None:
    """A low line of tenant x fills up the batches of others; then high rows come to x just before its turn."""
    lengths = (64, 30, 14, 6)
    limits = BatchLimits()
    queue = make_queue([make_row("y", n, tenant=f"y{n}") for n in lengths], limits)
    first = make_row("low", 66, tenant="x", priority="low")
    put(queue, [first])
    put(
        queue,
        [
            make_row("low", n, tenant="x", priority="low")
            for n in lengths
            for _ in range(min(limits.rows, limits.tokens // n) - 1)
        ],
    )
    own, batch = 0, list[Row]()
    for number in count():
        if number == len(lengths) - 1:
            put(queue, [make_row("high", 66, tenant="x", priority="high") for _ in range(450)])
        batch = queue.take(always, is_gone)
        own += sum(virtual(row) for row in batch if row.digest == "low")
        if first in batch:
            break
    assert own <= 2 * WINDOW * limits.tokens * PRIORITIES["normal"] + 3 * 66 * PRIORITIES["low"]


def test_equal_inputs_are_held_once_and_bounded_all_the_same() -> None:
    queue = make_queue([make_row(f"A{i}", 16, text=1) for i in range(50)])
    assert len(take(queue)) == SHARED_ROWS * LIMITS.rows
    queue = make_queue([make_row(f"A{i}", 900, text=1) for i in range(50)])
    assert len(take(queue)) == SHARED_TOKENS * LIMITS.tokens // 900
    queue = make_queue([make_row("A", 16, text=1) for _ in range(50)])
    assert len(take(queue)) == LIMITS.rows, "one adapter's"
    queue = make_queue([make_row("A", 500, text=1) for _ in range(50)])
    assert len(take(queue)) == LIMITS.rows, "one adapter's long text, held once"


def test_gone_rows_deep_in_a_line_are_no_longer_counted_after_a_purge() -> None:
    rows = [make_row("A", 10) for _ in range(4)]
    queue = make_queue(rows)
    for row in rows[1:]:
        row.request.progress.leave()
    queue.purge(is_gone)
    assert len(queue) == 1
    queue.put(make_row("B", 10))
    assert take(queue) == ["A", "B"]


def test_what_waits_for_nothing_is_forgotten() -> None:
    queue = make_queue()
    for i in range(200):
        queue.put(make_row(f"A{i}", tenant=f"t{i}"))
        take(queue)
    assert len(queue._serving._flows) <= 2


def test_verification_runs_only_when_nothing_else_can() -> None:
    queue = make_queue([make_row("V", verifying=True), *[make_row("A") for _ in range(8)]])
    assert [take(queue) for _ in range(3)] == [["A"] * 6, ["A"] * 2, ["V"]]
    put(queue, [make_row("V", verifying=True), make_row("A")])
    assert [r.digest for r in queue.take(lambda r: r.digest != "A", is_gone)] == ["V"]


def test_verification_gets_a_small_share_under_load_that_never_ends() -> None:
    queue = make_queue([make_row("V", verifying=True) for _ in range(12)])
    kinds = []
    for _ in range(3 * (VERIFY_AFTER + 1)):
        put(queue, [make_row("A") for _ in range(LIMITS.rows)])
        kinds.append(set(take(queue)))
    assert kinds.index({"V"}) == VERIFY_AFTER
    assert kinds.count({"V"}) == 2, "twelve rows are two batches"


def test_verification_whose_rows_are_all_gone_costs_no_batch() -> None:
    queue = make_queue([make_row("V", verifying=True, gone=True), make_row("A")])
    for _ in range(VERIFY_AFTER + 2):
        queue.put(make_row("A"))
        assert take(queue)


def test_compositions_of_many_weights_get_the_share_of_one_adapter_together() -> None:
    composed = [make_row(f"c{i}", flow="(composition)") for i in range(200)]
    queue = make_queue([*composed, *(make_row("a") for _ in range(200))], BatchLimits(rows=1, tokens=1024))
    ran = Counter(take(queue)[0] == "a" for _ in range(100))
    assert abs(ran[True] - ran[False]) <= 2 * WINDOW


def test_a_composition_without_a_slot_delays_no_other_one() -> None:
    rows = [make_row(digest, flow="(composition)") for digest in ("no", "no", "yes", "no", "yes", "also")]
    queue = make_queue(rows)
    ran = queue.take(lambda row: row.digest != "no", is_gone)
    assert Counter(row.digest for row in ran) == {"yes": 2, "also": 1}
    assert take(queue) == ["no"] * 3
