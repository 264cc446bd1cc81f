"""Choose the sequences that decode together, and what each pass computes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass

from rootstock.service.engine.core.errors import EngineError, RunnerFault
from rootstock.service.engine.core.slots import Slots
from rootstock.service.engine.core.turns.fair_queue import FairQueue
from rootstock.service.engine.core.work import PRIORITIES
from rootstock.service.engine.generate.decoder import KvCache, Segment
from rootstock.service.engine.generate.prefixes import PrefixCache
from rootstock.service.engine.generate.sequence import TextSequence


@dataclass(frozen=True)
class StepLimits:
    """The limits of a step: `rows` sequences that decode together, and `prefill_tokens` of prompts.

    A sequence gives up its place after `quantum` steps if another one's turn has come.
    """

    rows: int = 32
    prefill_tokens: int = 256
    quantum: int = 16


@dataclass(eq=False, slots=True)
class Lane:
    """The place of a sequence among those that run, with the slot that it leases.

    Its turn ends before the step of number `until`, but never while its prompt is computed: a full cache could
    take the part that is computed again and again. A `guest` runs beside lanes whose slot is wanted, and its turn
    ends with theirs in any case.
    """

    sequence: TextSequence
    slot: int
    until: int
    guest: bool = False


def _tenant(sequence: TextSequence) -> tuple[Hashable, int]:
    return sequence.tenant, PRIORITIES["normal"]


def _flow(sequence: TextSequence) -> tuple[Hashable, int]:
    return (sequence.flow, sequence.priority), PRIORITIES[sequence.priority]


def _adapter(sequence: TextSequence) -> tuple[Hashable, int]:
    # The compositions of one flow take turns, so that one without a slot delays no other.
    return sequence.digest, 1


class Scheduler:
    """The sequences of one foundation: those that wait, in fair order, and those that run, in lanes.

    A sequence runs in turns of at most a quantum of steps. A step computes a chunk of its prompt or one token
    of its answer. After its turn it waits again, unless no other sequence does. The queue
    (core/turns/fair_queue.py) counts the tokens of every turn against the tenant and the adapter, so that each
    gets its share. All compositions of a tenant share that of one adapter, and take turns in it. Within one
    adapter the sequences run in the order of their arrival. A tenant without a lane gets one for a prompt even if
    all are taken, so that its first token comes soon; another sequence then gives up its lane.

    If the sequence whose turn it is gets no slot, others may run beside those that already hold a slot, but their
    turns end with the turns of these. So they do not delay the next free slot.

    A sequence keeps its keys and values while it waits between turns. A prompt that begins like another one is
    copied as far as that one is computed (prefixes.py). If the cache is full, the prefixes that are kept for
    others go first. Then the sequences that wait lose theirs, and then the running ones that came last; they
    compute them again later. A sequence that does not fit lets no later one pass it, so that it does not wait for
    ever. Only one thread may use this class.
    """

    def __init__(
        self,
        cache: KvCache,
        slots: Slots,
        limits: StepLimits,
        is_gone: Callable[[TextSequence], bool],
        fail: Callable[[TextSequence, EngineError], None],
        longest: int = 4096,
    ) -> None:
        """Take the longest context in tokens as `longest`: the highest price of a turn follows from it."""
        self.limits = limits
        self.lanes: list[Lane] = []
        self._cache = cache
        self._prefixes = PrefixCache(cache)
        self._slots = slots
        self._is_gone = is_gone
        self._fail = fail
        horizon = max(limits.rows * limits.quantum, longest) * max(PRIORITIES.values())
        self._queue: FairQueue[TextSequence] = FairQueue((_tenant, _flow, _adapter), horizon)
        self._leased: dict[TextSequence, Lane] = {}
        self._step = 0
        # In this step, the sequence whose turn it is got no slot, or no room in the cache.
        self._no_slot = self._no_room = False

    def __len__(self) -> int:
        """Return the number of sequences that wait or run."""
        return self._queue.size + len(self.lanes)

    def __iter__(self) -> Iterator[TextSequence]:
        yield from (lane.sequence for lane in self.lanes)
        yield from self._queue

    def put(self, sequence: TextSequence) -> None:
        """Add a sequence, new or between turns."""
        sequence.cost = max(sequence.pending, self.limits.quantum)
        self._queue.put(sequence, front=sequence.started)

    def fill(self) -> None:
        """Drop the sequences that are gone, end the turns that are over, and fill the free lanes."""
        self._step += 1
        for lane in list(self.lanes):
            if self._is_gone(lane.sequence):
                self.finish(lane)
        over = [lane for lane in self.lanes if lane.until <= self._step]
        self._end_turns(lane for lane in over if lane.guest or lane.sequence.pending == 1)
        self._no_slot = self._no_room = False
        while self._queue.size and (sequence := self._pull()) is not None:
            self.lanes.append(self._leased.pop(sequence))
            sequence.started = True

    def prompts(self) -> list[tuple[Lane, Segment]]:
        """Return the next chunks of prompts, within the budget of a step, in the order of the lanes.

        A prompt that another of these chunks computes a part of waits for it, to copy it in the next step.
        """
        budget = self.limits.prefill_tokens
        chosen: list[tuple[Lane, Segment]] = []
        for lane in self.lanes:
            sequence = lane.sequence
            if not budget:
                break
            if sequence.pending > 1:
                self._prefixes.reuse(sequence)
            if sequence.pending == 1 or self._prefixes.gains(sequence, [other.sequence for other, _ in chosen]):
                continue
            # An encoder reads a source whole, even if it is longer than the budget.
            least = sequence.unread + 1
            if chosen and least > budget:
                break
            count = min(sequence.pending, max(budget, least))
            budget = max(0, budget - count)
            if count == sequence.pending and not lane.guest:
                lane.until = self._step + self.limits.quantum
            chosen.append((lane, _segment(lane, count)))
        return chosen

    def decodes(self) -> list[tuple[Lane, Segment]]:
        """Return the next token of each lane that decodes, after making room in the cache.

        If more lanes are taken than may run together, those with the least left of their turn end it.
        """
        excess = len(self.lanes) - self.limits.rows
        if excess > 0:
            decoding = sorted(self.lanes, key=lambda lane: (lane.sequence.pending > 1, lane.until))
            self._end_turns(decoding[:excess])
        for lane in list(self.lanes):
            if lane in self.lanes and lane.sequence.pending == 1:
                self._make_room(lane)
        return [(lane, _segment(lane, 1)) for lane in self.lanes if lane.sequence.pending == 1]

    def finish(self, lane: Lane) -> None:
        """Take a sequence that has ended out of its lane, and keep its prefix while there is room."""
        self._leave_lane(lane)
        self._prefixes.keep(lane.sequence)

    def drop(self, lane: Lane) -> None:
        """Take a sequence that has failed out of its lane, and free what it holds."""
        self._leave_lane(lane)
        self._prefixes.free(lane.sequence)

    def purge(self) -> None:
        """Free what the waiting sequences hold that are gone, and drop them."""
        self._queue.purge(self._drop_gone)

    def _pull(self) -> TextSequence | None:
        """Take the sequence whose turn is next and can begin out of the queue."""
        sequence = self._queue.pull(self._drop_gone, self._begin)
        if sequence is not None:
            self._queue.serve(sequence)
        self._queue.close()
        return sequence

    def _drop_gone(self, sequence: TextSequence) -> bool:
        gone = self._is_gone(sequence)
        if gone:
            self._prefixes.free(sequence)
        return gone

    def _begin(self, sequence: TextSequence) -> bool:
        """Lease a slot and make room for a sequence. Return False if it must wait."""
        if self._no_room or not self._has_lane(sequence):
            return False
        until = self._step + self.limits.quantum
        guest = self._no_slot and not (sequence.verifying or self._slots.is_foundation(sequence.digest))
        if guest:
            until = max((lane.until for lane in self.lanes if lane.sequence.digest == sequence.digest), default=0)
            if until <= self._step:
                return False
        try:
            slot = self._slots.lease(sequence.adapter, sequence.verifying)
        except Exception as error:  # a runner can raise anything: this sequence fails and the engine goes on
            fault = RunnerFault.caused("the adapter could not be loaded", error)
            self._prefixes.free(sequence)
            self._fail(sequence, fault)
            return False
        if slot is None:
            # Verification has a reserved slot, so it keeps nobody from another one.
            self._no_slot |= not sequence.verifying
            return False
        if sequence.row is None:
            sequence.row = self._cache.open(len(sequence.source))
            self._prefixes.add(sequence)
        if not self._extend(sequence, sequence.length + 1):
            self._slots.release(sequence.digest, sequence.verifying)
            self._prefixes.free(sequence)
            self._no_room = True
            return False
        self._leased[sequence] = Lane(sequence, slot, until, guest)
        return True

    def _has_lane(self, sequence: TextSequence) -> bool:
        if len(self.lanes) < self.limits.rows:
            return True
        return not sequence.started and all(lane.sequence.tenant != sequence.tenant for lane in self.lanes)

    def _extend(self, sequence: TextSequence, length: int) -> bool:
        """Make room for a sequence, if need be at the cost of kept prefixes and of those that wait."""
        if sequence.row is None:
            return False
        while not self._cache.extend(sequence.row, length):
            if self._prefixes.evict():
                continue
            holders = [s for s in self._queue if s.row is not None and s is not sequence]
            if not holders:
                return False
            self._prefixes.free(max(holders, key=lambda s: s.arrived))
        return True

    def _make_room(self, lane: Lane) -> None:
        """Make room for one more token, if need be at the cost of lanes that came later, or of this one."""
        while not self._extend(lane.sequence, lane.sequence.length + 1):
            last = max(self.lanes, key=lambda other: other.sequence.arrived)
            self._prefixes.free(last.sequence)
            self._end_turn(last)
            if last is lane:
                return

    def _end_turns(self, lanes: Iterable[Lane]) -> None:
        # Each goes to the front of its adapter's queue, so the one that came first goes last.
        for lane in sorted(lanes, key=lambda lane: lane.sequence.arrived, reverse=True):
            self._end_turn(lane)

    def _end_turn(self, lane: Lane) -> None:
        self._leave_lane(lane)
        self.put(lane.sequence)

    def _leave_lane(self, lane: Lane) -> None:
        self.lanes.remove(lane)
        self._slots.release(lane.sequence.digest, lane.sequence.verifying)


def _segment(lane: Lane, count: int) -> Segment:
    """Return the next `count` tokens that the cache lacks, those of the source included."""
    sequence = lane.sequence
    if sequence.row is None:
        raise ValueError("a sequence in a lane has a row in the cache")
    source = sequence.source if sequence.unread else ()
    tokens = sequence.next_tokens(count - len(source))
    return Segment(sequence.row, lane.slot, tokens, sequence.computed, source)
