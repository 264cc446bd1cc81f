"""What waits is counted once, whatever becomes of it, and what does not fit is refused."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootstock.service.engine.core.admission import Admission, Capacity, Ticket, estimated_tokens
from rootstock.service.engine.core.errors import EngineError, Overloaded, TooLarge


def test_a_full_queue_refuses_in_inputs_and_in_tokens_and_takes_again_once_there_is_room() -> None:
    admission = Admission(Capacity(items=3, tokens=100))
    first = admission.enter(2, 60)
    with pytest.raises(Overloaded, match=r"queue full \(2 of 3 inputs; this request adds 2\)"):
        admission.enter(2, 10)
    with pytest.raises(Overloaded, match=r"queue full \(60 of 100 tokens; this request adds 41\)"):
        admission.enter(1, 41)
    admission.leave(admission.enter(1, 40))
    admission.take(first, 30)
    assert admission.waiting() == (1, 30)
    admission.enter(2, 70)


def test_a_request_of_more_inputs_than_the_queue_holds_is_too_large_however_full_it_is() -> None:
    admission = Admission(Capacity(items=3, tokens=100))
    for _ in range(2):
        with pytest.raises(TooLarge, match="4 inputs in one request; the queue holds at most 3"):
            admission.enter(4, 10)
        if not admission.waiting()[0]:
            admission.enter(3, 10)


def test_only_a_text_that_is_tokenised_is_too_large_for_its_tokens() -> None:
    admission = Admission(Capacity(items=3, tokens=100))
    ticket = admission.enter(1, 5000)
    assert admission.waiting() == (1, 100)
    with pytest.raises(TooLarge, match="101 tokens in one request"):
        admission.settle(ticket, 1, 101)
    admission.settle(ticket, 1, 7)
    assert admission.waiting() == (1, 7)


def test_a_call_that_has_more_tokens_than_were_estimated_is_refused_if_they_do_not_fit() -> None:
    admission = Admission(Capacity(items=9, tokens=100))
    ticket, other = admission.enter(1, 20), admission.enter(1, 70)
    with pytest.raises(Overloaded, match=r"queue full \(70 of 100 tokens; this request adds 31\)"):
        admission.settle(ticket, 1, 31)
    admission.settle(ticket, 1, 30)
    assert admission.waiting() == (2, 100)
    admission.settle(other, 1, 60)


def test_a_call_that_turns_out_smaller_is_not_refused_for_what_came_after_it() -> None:
    admission = Admission(Capacity(items=2, tokens=100))
    ticket = admission.enter(1, 50)
    admission.enter(1, 50)
    admission.settle(ticket, 1, 40)
    assert admission.waiting() == (2, 90)


def test_one_claimant_leaves_room_for_others_and_may_come_again_once_its_own_ran() -> None:
    admission = Admission(Capacity(items=10, tokens=1000))
    flood = [admission.enter(1, 10, "a") for _ in range(8)]
    with pytest.raises(Overloaded, match=r"limit for this model reached \(8 of 8 queued inputs\)"):
        admission.enter(1, 10, "a")
    admission.leave(admission.enter(2, 10, "b"))
    admission.leave(admission.enter(2, 10))
    admission.take(flood.pop(), 10)
    admission.enter(1, 10, "a")


def test_one_claimant_leaves_room_in_tokens_too_and_one_call_may_be_as_large_as_the_queue() -> None:
    admission = Admission(Capacity(items=10, tokens=1000))
    admission.leave(admission.enter(10, 1000, "a"))
    admission.enter(1, 500, "a")
    with pytest.raises(Overloaded, match=r"limit for this model reached \(500 of 500 queued tokens\)"):
        admission.enter(1, 500, "a")
    admission.enter(1, 300, "a")
    with pytest.raises(Overloaded, match=r"limit for this model reached \(800 of 800 queued tokens\)"):
        admission.enter(1, 1, "a")
    admission.enter(1, 200, "b")


def test_the_more_claimants_wait_the_less_each_has_and_together_they_fill_nearly_all() -> None:
    admission = Admission(Capacity(items=500, tokens=1_000_000))
    had = dict.fromkeys(range(25), 0)
    for _ in range(100):
        for claimant in had:
            with suppress(Overloaded):
                admission.enter(1, 1, claimant)
                had[claimant] += 1
    assert min(had.values()) >= 19
    assert max(had.values()) <= 20


def test_a_call_that_turns_out_smaller_is_not_refused_for_its_claimants_share() -> None:
    admission = Admission(Capacity(items=10, tokens=1000))
    tickets = [admission.enter(2, 10, "a") for _ in range(4)]
    admission.enter(2, 10, "b")
    admission.settle(tickets[0], 1, 10)
    assert admission.waiting()[0] == 9


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["enter", "settle", "take", "leave"]),
            st.integers(0, 5),
            st.integers(1, 4),
            st.integers(1, 60),
        ),
        max_size=40,
    )
)
def test_what_waits_is_the_sum_of_what_is_left_of_open_calls_and_never_over_capacity(
    steps: list[tuple[str, int, int, int]],
) -> None:
    admission = Admission(Capacity(items=8, tokens=150))
    left: dict[Ticket, list[int]] = {}
    gone: list[Ticket] = []
    for what, which, items, tokens in steps:
        tickets = [*left, *gone]
        try:
            if what == "enter":
                left[admission.enter(items, items * tokens, which % 3 or None)] = [
                    min(tokens, 150 // items)
                ] * items
            elif not tickets:
                continue
            elif what == "settle":
                ticket = tickets[which % len(tickets)]
                admission.settle(ticket, items, items * tokens)
                if ticket in left:
                    left[ticket] = [tokens] * items
            elif what == "take":
                ticket = tickets[which % len(tickets)]
                row = left[ticket].pop() if left.get(ticket) else None
                if row is not None or ticket in gone:
                    admission.take(ticket, row or tokens)
            else:
                ticket = tickets[which % len(tickets)]
                admission.leave(ticket)
                gone.append(ticket)
                left.pop(ticket, None)
        except EngineError:
            pass
        items_left = sum(len(rows) for rows in left.values())
        assert admission.waiting()[0] == items_left <= 8
        assert admission.waiting()[1] <= 150
        assert all(t.tokens >= 0 for t in left)
    for ticket in left:
        admission.leave(ticket)
    assert admission.waiting() == (0, 0)
    assert not admission._claims


@pytest.mark.parametrize(
    ("waiting", "rate", "seconds"),
    [(0, None, 1), (500, None, 1), (450, 100.0, 5), (510, 100.0, 6), (500, 1.0, 30)],
)
def test_retry_after_is_the_time_in_which_what_waits_runs(waiting: int, rate: float | None, seconds: int) -> None:
    admission = Admission(Capacity(items=1, tokens=1000))
    if rate is not None:
        admission.ran(1000, 10.0)  # what was long ago counts little
        for _ in range(200):
            admission.ran(200, 200 / rate)
    admission.enter(1, waiting)
    with pytest.raises(Overloaded) as refused:
        admission.enter(1, 1)
    assert refused.value.retry_after == seconds


def test_a_text_is_taken_for_a_token_in_four_characters_up_to_the_longest_that_runs() -> None:
    assert estimated_tokens(["word " * 8, ("a" * 20, "b" * 20), ""], 512) == 11 + 11 + 1
    assert estimated_tokens(["x" * 2048] * 3, 512) == 3 * 512


def test_what_a_text_has_beyond_the_longest_that_runs_costs_the_time_to_read_it() -> None:
    assert estimated_tokens(["x" * (2048 + 64 * 1000), "y"], 512) == 512 + 1000 + 1


def test_texts_of_few_tokens_and_many_characters_fill_the_queue_as_what_they_take() -> None:
    admission = Admission(Capacity())
    heavy = estimated_tokens(["x" * 2**18] * 32, 512)
    admission.enter(32, heavy, "a")
    with pytest.raises(Overloaded, match="tokens"):
        admission.enter(32, heavy, "b")
