"""Which versions may answer a request, from what a client knows of the moves."""

from __future__ import annotations

from rootstock.loadtest.judgement.ledger import Ledger


def test_what_is_live_at_the_start_may_answer_until_a_move_is_answered() -> None:
    ledger = Ledger({"a": "one"})
    ledger.sent("a", "two", 10.0)
    assert ledger.live("a", 11.0, 12.0) == {"one", "two"}
    ledger.answered("a", 13.0)
    assert ledger.live("a", 14.0, 15.0) == {"two"}


def test_a_new_version_may_not_answer_before_its_move_was_sent() -> None:
    ledger = Ledger({"a": "one"})
    ledger.sent("a", "two", 10.0)
    ledger.answered("a", 11.0)
    assert ledger.live("a", 8.0, 9.0) == {"one"}


def test_a_request_that_spans_a_move_may_get_either_version() -> None:
    ledger = Ledger({"a": "one"})
    ledger.sent("a", "two", 10.0)
    ledger.answered("a", 11.0)
    assert ledger.live("a", 9.0, 12.0) == {"one", "two"}


def test_a_version_that_becomes_live_again_may_answer_again() -> None:
    ledger = Ledger({"a": "one"})
    for digest, at in (("two", 10.0), ("one", 20.0)):
        ledger.sent("a", digest, at)
        ledger.answered("a", at + 1)
    assert ledger.live("a", 15.0, 16.0) == {"two"}
    assert ledger.live("a", 30.0, 31.0) == {"one"}
    assert (ledger.latest("a"), ledger.earlier("a")) == ("one", "two")


def test_a_move_that_was_never_answered_leaves_both_versions_open() -> None:
    ledger = Ledger({"a": "one"})
    ledger.sent("a", "two", 10.0)
    assert ledger.live("a", 100.0, 101.0) == {"one", "two"}


def test_names_do_not_share_their_moves() -> None:
    ledger = Ledger({"a": "one", "b": "other"})
    ledger.sent("a", "two", 10.0)
    ledger.answered("a", 11.0)
    assert ledger.live("b", 20.0, 21.0) == {"other"}
