"""The choice among the versions of a split: even, sticky, and the same for every server."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, kstest

from rootstock.adapters.errors import FoundationNotHosted
from rootstock.adapters.reference import FOUNDATION
from rootstock.adapters.registry import Resolution, SplitCandidate
from rootstock.service.engine.core.request import RequestOptions
from rootstock.service.foundation_host import FoundationHost
from rootstock.service.foundations import Foundations
from rootstock.service.references.splits import SplitChoice, candidate_at, noting, place_of
from tests.service.engine.fakes import SPEC, Bench, run

REQUESTS = 20_000
KEYS = [f"user-{i}" for i in range(REQUESTS)]
PERCENTS = st.floats(0.001, 100, allow_nan=False)
PLACES = st.floats(0, 100, exclude_max=True)


def split(*percents: float, stored: str = "spam", alias: str = "live") -> Resolution:
    """Return what an alias means whose candidates, from version 2 on, have these percents."""
    candidates = tuple(
        SplitCandidate(number, f"sha256:{number}", f"print-{number}", "fill-mask", percent)
        for number, percent in enumerate(percents, 2)
    )
    return Resolution("spam", 1, "sha256:1", None, "fill-mask", stored, alias, candidates)


def choice(*missing: str) -> SplitChoice:
    """Return the choice of a server that hosts all foundations apart from these."""
    return SplitChoice(lambda fingerprint: fingerprint not in missing, lambda: None)


def versions(resolution: Resolution, keys: list[str]) -> list[int]:
    chosen = choice()
    return [chosen.choose(resolution, key).version for key in keys]


@pytest.mark.parametrize("percent", [0.5, 10, 50, 99])
def test_a_candidate_answers_its_share_of_many_keys(percent: float) -> None:
    answered = versions(split(percent), KEYS).count(2)
    assert binomtest(answered, REQUESTS, percent / 100).pvalue > 1e-4


def test_requests_without_a_key_are_drawn_at_random() -> None:
    answered = versions(split(10), [""] * REQUESTS).count(2)
    assert binomtest(answered, REQUESTS, 0.1).pvalue > 1e-4


def test_the_places_of_keys_are_uniform_and_each_alias_has_its_own() -> None:
    places = {
        (stored, alias): [place_of(stored, alias, key) for key in KEYS]
        for stored, alias in (("spam", "live"), ("spam", "prod"), ("ham", "live"), ("acme/spam", "live"))
    }
    for of_alias in places.values():
        assert kstest(of_alias, "uniform", args=(0, 100)).pvalue > 1e-4
    tenths = [{key for key, place in zip(KEYS, one, strict=True) if place < 10} for one in places.values()]
    for other in tenths[1:]:
        assert binomtest(len(tenths[0] & other), REQUESTS, 0.01).pvalue > 1e-4


@given(st.text(max_size=40), st.text(max_size=40))
def test_a_place_is_the_hash_s_first_bits_as_a_percent(key: str, other: str) -> None:
    """The form is a contract between servers: one that computes it otherwise sends a key elsewhere."""
    digest = hashlib.sha256(b"acme/spam\nlive\n" + key.encode("utf-8", "surrogatepass")).hexdigest()
    exact = Fraction(int(digest[:16], 16), 2**64) * 100
    assert place_of("acme/spam", "live", key) == pytest.approx(float(exact), abs=1e-9)
    assert 0 <= place_of("acme/spam", "live", other) < 100


@given(st.lists(PERCENTS, min_size=1, max_size=16), st.text(min_size=1, max_size=20))
def test_equal_keys_get_equal_versions_on_every_server(percents: list[float], key: str) -> None:
    total = sum(percents)
    shares = [percent * min(1, 100 / total) for percent in percents]
    first, second = choice(), choice()
    assert first.choose(split(*shares), key) == second.choose(split(*shares), key)


@given(PERCENTS, PERCENTS, PLACES)
def test_a_larger_share_moves_requests_only_towards_the_candidate(one: float, two: float, place: float) -> None:
    less, more = sorted((one, two))
    before, after = candidate_at(split(less), place), candidate_at(split(more), place)
    assert before is None or after is not None


@given(st.lists(st.floats(0.1, 20), min_size=2, max_size=5), st.floats(0, 0.1), PLACES)
def test_a_larger_share_of_the_last_candidate_moves_none_of_the_others(
    percents: list[float], more: float, place: float
) -> None:
    before = candidate_at(split(*percents), place)
    after = candidate_at(split(*percents[:-1], percents[-1] + more), place)
    if before is not None:
        assert after is not None
        assert after.version == before.version


@given(st.lists(PERCENTS, min_size=1, max_size=16), PLACES)
def test_the_candidates_take_their_percents_one_after_the_other(percents: list[float], place: float) -> None:
    total = sum(percents)
    shares = [percent * min(1, 100 / total) for percent in percents]
    found = candidate_at(split(*shares), place)
    before = sum(Fraction(share) for share in shares[: (len(shares) if found is None else found.version - 2)])
    assert place >= before - Fraction(1, 10**9)
    if found is not None:
        assert place < before + Fraction(found.percent) + Fraction(1, 10**9)


def test_a_hundred_percent_leaves_the_alias_s_own_version_nothing() -> None:
    assert set(versions(split(100), [*KEYS[:500], ""])) == {2}
    assert set(versions(split(), KEYS[:10])) == {1}


def test_the_chosen_version_brings_its_digest_foundation_and_task() -> None:
    resolution = split(100)
    assert choice().choose(resolution, "k") == replace(
        resolution, version=2, digest="sha256:2", foundation="print-2", task="fill-mask"
    )


def test_a_candidate_whose_foundation_is_not_here_leaves_its_requests_to_the_alias_s_version() -> None:
    replaced: list[None] = []
    chosen = SplitChoice(lambda fingerprint: fingerprint != "print-2", lambda: replaced.append(None))
    answered = [chosen.choose(split(30, 30), key).version for key in KEYS[:1000]]
    elsewhere = versions(split(30, 30), KEYS[:1000])
    assert answered == [1 if version == 2 else version for version in elsewhere]
    assert len(replaced) == elsewhere.count(2) > 0


def test_a_server_answers_in_place_of_a_candidate_that_it_does_not_host_and_refuses_to_take_one() -> None:
    replaced: list[None] = []

    async def body(bench: Bench) -> None:
        bench.add("a", "b")
        here = bench.catalog.resolve("a").digest
        candidates = (
            SplitCandidate(2, bench.catalog.resolve("b").digest, "elsewhere", "text-classification", 100),
        )
        alias = Resolution("a", 1, here, None, "text-classification", "a", "live", candidates)
        registry = cast(Any, SimpleNamespace(resolve=lambda reference: alias))
        catalog = cast(Any, SimpleNamespace(spec=SPEC))
        host = FoundationHost(FOUNDATION, (bench.engine,), catalog, *3 * (cast(Any, None),))
        foundations = Foundations([host], registry, replaced=lambda: replaced.append(None))
        chosen: set[tuple[int, str]] = set()
        with noting(chosen):
            answer = await foundations.predict("a", ["w1"], {}, options=RequestOptions(sticky="k"))
        assert (answer.resolved.version, answer.resolved.digest) == (1, here)
        assert chosen == {(1, here)}
        assert len(replaced) == 1
        with pytest.raises(FoundationNotHosted):
            await foundations.load(alias.as_candidate(candidates[0]))

    run(body)
