"""A stop string ends a text at the same place however the text is cut, and nothing of it is ever sent."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootstock.service.engine.generate.stop_strings import StopStrings

# Two letters make overlaps and near misses frequent.
TEXTS = st.text("ab", max_size=40)
STOPS = st.lists(st.text("ab", min_size=1, max_size=6), max_size=4)


def pieces_of(text: str, cuts: list[int]) -> list[str]:
    ends = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    return [text[a:b] for a, b in pairwise(ends)]


def searched(text: str, stops: list[str]) -> tuple[str, bool]:
    """The text before the stop string that is complete first and, of those that end together, is the longest."""
    found = [(text.find(stop) + len(stop), -len(stop)) for stop in stops if stop in text]
    if not found:
        return text, False
    end, length = min(found)
    return text[: end + length], True


@settings(deadline=None)
@given(TEXTS, STOPS, st.lists(st.integers(0, 40)))
def test_a_text_in_pieces_ends_where_a_search_of_the_whole_text_ends_it(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    matcher = StopStrings(stops)
    sent, met = "", False
    for piece in pieces_of(text, cuts):
        free, met = matcher.feed(piece)
        sent += free
    assert (sent + matcher.flush(), met) == searched(text, stops)


@settings(deadline=None)
@given(TEXTS, STOPS, st.lists(st.integers(0, 40)))
def test_exactly_what_can_begin_a_stop_string_is_held_back(text: str, stops: list[str], cuts: list[int]) -> None:
    matcher = StopStrings(stops)
    fed = sent = ""
    for piece in pieces_of(text, cuts):
        free, met = matcher.feed(piece)
        if met:
            return
        fed, sent = fed + piece, sent + free
        beginnings = [stop[:n] for stop in stops for n in range(1, len(stop))]
        held = max((len(start) for start in beginnings if fed.endswith(start)), default=0)
        assert sent == fed[: len(fed) - held]


def test_a_stop_string_that_overlaps_itself_is_found_after_every_near_miss() -> None:
    draw = Random(0)
    for _ in range(10_000):
        stop = "".join(draw.choices("ab", k=draw.randint(3, 10)))
        text = "".join(stop[: draw.randint(1, len(stop))] for _ in range(4)) + stop
        assert StopStrings([stop]).feed(text) == (text[: text.find(stop)], True)


def test_a_stop_string_is_found_across_pieces_and_hides_the_rest() -> None:
    matcher = StopStrings(["\n\nUser:"])
    assert matcher.feed("Hello.\n") == ("Hello.", False)
    assert matcher.feed("\nUse") == ("", False)
    assert matcher.feed("r: more") == ("", True)
    assert matcher.feed("still more") == ("", True)
    assert matcher.flush() == ""


def test_text_that_only_began_like_a_stop_string_is_sent_later() -> None:
    matcher = StopStrings(["END"])
    assert matcher.feed("the EN") == ("the ", False)
    assert matcher.feed("TRY") == ("ENTRY", False)
    assert matcher.feed(" E") == (" ", False)
    assert matcher.flush() == "E"


def test_without_stop_strings_all_text_is_sent_at_once() -> None:
    matcher = StopStrings(())
    assert matcher.feed("anything") == ("anything", False)
    assert matcher.flush() == ""


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        StopStrings(["a", ""])
