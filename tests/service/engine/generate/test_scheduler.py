"""The scheduler: each sequence is computed as if it were alone, none waits for ever, and all room is freed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootstock.service.engine.core.admission import Admission, Capacity
from rootstock.service.engine.core.errors import EngineError
from rootstock.service.engine.core.observer import Observer
from rootstock.service.engine.core.slots import Slots
from rootstock.service.engine.generate.decode_worker import DecodeWorker
from rootstock.service.engine.generate.decoder import Segment
from rootstock.service.engine.generate.sampling_options import SamplingOptions
from rootstock.service.engine.generate.scheduler import StepLimits
from rootstock.service.engine.generate.sequence import Step, TextSequence
from rootstock.service.engine.generate.token_sampler import TokenSampler
from tests.service.engine.generate.hash_decoder import VOCABULARY, HashDecoder, greedy, make_adapter


@dataclass
class _Bench:
    """A worker that is stepped by hand, with the steps at which each sequence got its tokens."""

    limits: StepLimits = field(default_factory=StepLimits)
    slots: int = 6
    capacity: int = 4096
    now: float = 0.0
    step: int = 0
    passes: list[list[Segment]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.decoder = HashDecoder(self.slots, self.capacity, lambda segments: self.passes.append(list(segments)))
        self.holders = Slots(self.decoder, make_adapter("foundation"))
        self.worker = DecodeWorker(
            self.holders, self.decoder, self.limits, Admission(Capacity()), Observer(), lambda: self.now
        )
        self.steps: dict[TextSequence, list[int]] = {}
        self.errors: dict[TextSequence, EngineError] = {}

    def add(
        self,
        digest: str,
        prompt: Sequence[int],
        most: int,
        tenant: str = "",
        source: Sequence[int] = (),
        flow: str = "",
    ) -> TextSequence:
        sampler = TokenSampler(SamplingOptions(temperature=0, max_tokens=most), prompt, [], VOCABULARY)

        def deliver(event: Step | EngineError) -> None:
            if isinstance(event, EngineError):
                self.errors[sequence] = event
            else:
                self.steps.setdefault(sequence, []).append(self.step)

        sequence = TextSequence(
            make_adapter(digest),
            prompt,
            sampler,
            deliver,
            float(len(self.steps)),
            1e9,
            source,
            tenant=tenant,
            flow=flow,
        )
        self.steps[sequence] = []
        self.worker.admit([sequence])
        return sequence

    def run(self, most: int = 10_000) -> None:
        self.forward()
        while len(self.worker.scheduler):
            assert self.step < most, "a sequence waits for ever"
            self.forward()

    def forward(self) -> None:
        self.step += 1
        self.worker.step()


_TOKENS = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=40)
# Many prompts begin alike, some are equal, and some go on where an answer ended.
_PROMPTS = st.one_of(
    _TOKENS,
    st.tuples(st.integers(0, 40), st.lists(st.integers(0, 1), max_size=3)).map(
        lambda pair: [*range(pair[0]), *pair[1], 7]
    ),
    st.integers(0, 30).map(lambda most: [*range(20), *greedy("a", list(range(20)), most)]),
)
_CALLS = st.lists(
    st.tuples(
        st.sampled_from(["foundation", "a", "a", "a", "b", "c", "d", "e", "f"]),
        _PROMPTS,
        st.integers(1, 30),
        st.sampled_from(["x", "y"]),
        st.integers(0, 6),
        st.lists(st.integers(0, VOCABULARY - 1), max_size=25),
    ),
    min_size=1,
    max_size=14,
)


@settings(deadline=None, max_examples=60)
@given(
    calls=_CALLS,
    slots=st.integers(3, 8),
    capacity=st.integers(16, 60),
    rows=st.integers(1, 8),
    budget=st.integers(1, 20),
    quantum=st.integers(1, 8),
    leaving=st.sets(st.integers(0, 13), max_size=3),
)
def test_every_sequence_is_answered_as_if_it_were_alone_and_all_room_is_given_back(
    calls: list[tuple[str, list[int], int, str, int, list[int]]],
    slots: int,
    capacity: int,
    rows: int,
    budget: int,
    quantum: int,
    leaving: set[int],
) -> None:
    bench = _Bench(StepLimits(rows, budget, quantum), slots, capacity * 8)
    sequences = []
    for digest, prompt, most, tenant, pause, source in calls:
        sequences.append(bench.add(digest, prompt, most, tenant, source))
        for _ in range(pause):
            bench.forward()
    gone = [sequences[i] for i in leaving if i < len(sequences)]
    for sequence in gone:
        sequence.left = True
    bench.worker.leave()
    bench.run()
    assert not bench.errors
    for sequence, (digest, prompt, most, _, _, source) in zip(sequences, calls, strict=True):
        expected = greedy(digest, prompt, most, source)
        assert sequence.tokens == (expected[: len(sequence.tokens)] if sequence in gone else expected)
    assert bench.decoder.cache.used == 0
    assert bench.decoder.cache.kept == sum(map(len, bench.decoder.cache.rows.values())) <= capacity * 4
    assert all(place.leases == 0 for place in bench.holders._places.values())


def _computed(bench: _Bench) -> int:
    return sum(len(segment.tokens) for one in bench.passes for segment in one)


def test_a_prompt_that_goes_on_where_an_answer_ended_is_copied_up_to_there() -> None:
    bench = _Bench()
    prompt = list(range(40))
    first = bench.add("a", prompt, 20)
    bench.run()
    bench.passes.clear()
    longer = [*prompt, *first.tokens, 5, 6]
    second = bench.add("a", longer, 10)
    bench.run()
    assert second.tokens == greedy("a", longer, 10)
    # The last token of the first answer was never computed.
    assert second.reused == 59
    assert _computed(bench) == 3 + 9


def test_equal_prompts_that_arrive_together_are_computed_once() -> None:
    bench = _Bench()
    sequences = [bench.add("a", list(range(100)), 5) for _ in range(8)]
    bench.run()
    assert all(sequence.tokens == greedy("a", list(range(100)), 5) for sequence in sequences)
    assert _computed(bench) == 100 + 7 * 1 + 8 * 4


def test_a_prompt_whose_computation_goes_on_is_copied_as_far_as_it_is_computed() -> None:
    bench = _Bench(StepLimits(prefill_tokens=20))
    bench.add("a", list(range(90)), 5)
    bench.forward()
    bench.add("a", [*range(50), 1, 2, 3], 5)
    bench.run()
    assert _computed(bench) == 90 + 3 + 2 * 4
    assert all(s.tokens == greedy("a", s.prompt, 5) for s in bench.steps)


@pytest.mark.parametrize(("digest", "tenant"), [("b", "x"), ("a", "y")])
def test_neither_another_adapter_nor_another_tenant_copies_a_prefix(digest: str, tenant: str) -> None:
    bench = _Bench()
    prompt = list(range(40))
    bench.add("a", prompt, 5, "x")
    bench.run()
    bench.passes.clear()
    other = bench.add(digest, prompt, 5, tenant)
    bench.run()
    assert other.reused == 0
    assert _computed(bench) == 44


def test_kept_prefixes_give_way_to_sequences_that_need_the_room() -> None:
    bench = _Bench(capacity=128)
    for digest in "abcd":
        bench.add(digest, list(range(25)), 5)
        bench.run()
    assert bench.decoder.cache.kept == 58
    long = bench.add("e", list(range(90)), 30)
    bench.run()
    assert long.tokens == greedy("e", list(range(90)), 30)


def test_a_prefix_that_was_copied_lately_outlives_one_that_was_not() -> None:
    bench = _Bench(capacity=160)
    for digest in "ab":
        bench.add(digest, list(range(30)), 5)
        bench.run()
    again = bench.add("a", list(range(30)), 5)
    bench.run()
    bench.add("c", list(range(30)), 5)
    bench.run()
    late = {digest: bench.add(digest, list(range(30)), 5) for digest in "ab"}
    bench.run()
    assert (again.reused, late["a"].reused, late["b"].reused) == (29, 29, 0)


def test_a_pass_of_prompts_stays_within_its_budget_and_a_pass_of_tokens_within_its_rows() -> None:
    bench = _Bench(StepLimits(rows=3, prefill_tokens=10, quantum=4))
    for i in range(8):
        bench.add(f"a{i % 3}", list(range(25)), 9)
    bench.run()
    prompts = [one for one in bench.passes if max(len(segment.tokens) for segment in one) > 1]
    tokens = [one for one in bench.passes if one not in prompts]
    assert max(sum(len(segment.tokens) for segment in one) for one in prompts) == 10
    assert max(map(len, tokens)) == 3


def test_sequences_with_sources_share_nothing_although_they_begin_alike() -> None:
    bench = _Bench()
    for source in ([1, 2], [1, 2], [3]):
        sequence = bench.add("a", list(range(40)), 5, source=source)
        bench.run()
        assert sequence.tokens == greedy("a", list(range(40)), 5, source)
        assert not sequence.reused
        assert not bench.decoder.cache.rows


def test_a_pass_reads_whole_sources_within_its_budget_and_a_longer_one_alone() -> None:
    bench = _Bench(StepLimits(rows=8, prefill_tokens=30, quantum=4))
    for length in (12, 50, 12, 12):
        bench.add("a", [0], 3, source=list(range(length)))
    bench.run()
    read = [[len(segment.source) for segment in one] for one in bench.passes if any(s.source for s in one)]
    assert read == [[12], [50], [12, 12]]


@pytest.mark.parametrize("others", [10, 100])
def test_a_tenant_with_one_sequence_waits_for_its_first_token_no_longer_beside_a_hundred(others: int) -> None:
    # Turns are so long that no lane becomes free in time.
    bench = _Bench(StepLimits(rows=8, prefill_tokens=64, quantum=150), slots=32)
    for i in range(others):
        bench.add(f"b{i % 20}", list(range(30)), 200, "busy")
    for _ in range(40):
        bench.forward()
    asked = bench.step
    single = bench.add("single", list(range(30)), 40, "quiet")
    while not bench.steps[single]:
        bench.forward()
    # Alone it would take one step.
    assert bench.steps[single][0] - asked <= 2
    while len(bench.steps[single]) < 40:
        bench.forward()
    # Its share is half of all tokens, so it decodes in nearly every step.
    assert bench.steps[single][-1] - bench.steps[single][0] <= 40 + 8


def test_tenants_share_the_tokens_equally_whatever_the_number_of_their_sequences() -> None:
    bench = _Bench(StepLimits(rows=8, prefill_tokens=512, quantum=4), slots=32)
    for i in range(40):
        bench.add(f"b{i % 5}", [1, 2, 3], 400, "many")
    few = [bench.add(f"c{i}", [1, 2, 3], 400, "few") for i in range(4)]
    for _ in range(300):
        bench.forward()
    tokens = {True: 0, False: 0}
    for sequence, steps in bench.steps.items():
        tokens[sequence in few] += len(steps)
    assert 0.9 < tokens[True] / tokens[False] < 1.1


def test_compositions_of_many_weights_get_the_share_of_one_adapter_together() -> None:
    bench = _Bench(StepLimits(rows=8, prefill_tokens=512, quantum=4), slots=64)
    for i in range(40):
        bench.add(f"c{i}", [1, 2, 3], 400, flow="(composition)")
    single = [bench.add("a", [1, 2, 3], 400) for _ in range(40)]
    for _ in range(300):
        bench.forward()
    tokens = {True: 0, False: 0}
    for sequence, steps in bench.steps.items():
        tokens[sequence in single] += len(steps)
    assert 0.9 < tokens[True] / tokens[False] < 1.1


def test_a_composition_without_a_slot_delays_no_other_one() -> None:
    # One slot beside the foundation's and that of verification.
    bench = _Bench(StepLimits(rows=8, prefill_tokens=512, quantum=50), slots=3)
    holding = bench.add("c0", [1, 2, 3], 30, flow="(composition)")
    bench.forward()
    waiting = bench.add("c1", [1, 2, 3], 30, flow="(composition)")
    beside = bench.add("c0", [4, 5, 6], 30, flow="(composition)")
    bench.run()
    assert bench.steps[beside][0] < bench.steps[holding][-1] < bench.steps[waiting][0]


def test_sequences_of_one_adapter_run_in_the_order_of_their_arrival() -> None:
    bench = _Bench(StepLimits(rows=2, prefill_tokens=64, quantum=3))
    sequences = [bench.add("a", [i], 10) for i in range(6)]
    bench.run()
    steps = [bench.steps[sequence] for sequence in sequences]
    # No third sequence begins before one of the first two has ended.
    assert all(later[0] > earlier[-1] for earlier, later in zip(steps, steps[2:], strict=False))


def test_an_adapter_without_a_slot_gets_one_although_others_never_pause() -> None:
    bench = _Bench(StepLimits(rows=8, prefill_tokens=64, quantum=5), slots=3)
    for _ in range(30):
        bench.add("busy", [1, 2], 50)
        bench.forward()
    asked = bench.step
    other = bench.add("other", [3, 4], 5)
    while not bench.steps[other]:
        bench.add("busy", [1, 2], 50)
        bench.forward()
        assert bench.step - asked < 40
    bench.run()


def test_a_sequence_whose_deadline_passes_gets_an_error_and_gives_its_room_back() -> None:
    bench = _Bench()
    late, other = bench.add("a", [1, 2], 50), bench.add("b", [1, 2], 50)
    late.deadline = 5.0
    for _ in range(5):
        bench.forward()
    bench.now = 6.0
    bench.run()
    assert bench.errors[late].code == "deadline_exceeded"
    assert len(other.tokens) == 50
    assert bench.decoder.cache.used == 0


def test_prompts_longer_than_a_turn_are_answered_although_only_one_fits_in_the_cache() -> None:
    bench = _Bench(StepLimits(rows=4, prefill_tokens=4, quantum=2), capacity=64)
    long = [bench.add(digest, list(range(40)), 6) for digest in ("a", "b")]
    bench.run(1000)
    assert [sequence.tokens for sequence in long] == [greedy(d, list(range(40)), 6) for d in ("a", "b")]


def test_the_first_sequences_of_an_adapter_go_on_beside_another_adapter() -> None:
    bench = _Bench(StepLimits(rows=4, prefill_tokens=64, quantum=3))
    first = [bench.add("a", [i], 60) for i in range(4)]
    for _ in range(10):
        bench.forward()
    for i in range(2):
        bench.add("b", [i], 200)
    before = [len(bench.steps[sequence]) for sequence in first]
    for _ in range(30):
        bench.forward()
    gained = [len(bench.steps[sequence]) - had for sequence, had in zip(first, before, strict=True)]
    assert gained[0] >= gained[-1]
    assert gained[0] > 20


def test_an_adapter_that_is_deleted_while_its_sequence_leaves_gives_its_slot_back() -> None:
    bench = _Bench()
    sequence = bench.add("a", [1, 2], 50)
    bench.forward()
    sequence.left = True
    bench.worker.drop("a")
    bench.worker.leave()
    bench.run()
    bench.forward()
    assert not bench.holders.resident()
