"""The thread that generates: each step computes chunks of prompts, then one token of every running sequence."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

from rootstock.adapters.spec import Array
from rootstock.service.engine.core.admission import Admission
from rootstock.service.engine.core.errors import Draining, EngineError, Expired, RunnerFault
from rootstock.service.engine.core.observer import BatchStats, Observer
from rootstock.service.engine.core.slots import Slots
from rootstock.service.engine.core.work import Priority
from rootstock.service.engine.core.worker import SlotWorker
from rootstock.service.engine.generate.decoder import Decoder, Segment
from rootstock.service.engine.generate.scheduler import Lane, Scheduler, StepLimits
from rootstock.service.engine.generate.sequence import Step, TextSequence
from rootstock.service.engine.generate.token_sampler import TokenChoice, choose_all


class DecodeWorker(SlotWorker):
    """A thread that steps while sequences wait or run.

    A fault of the decoder fails the sequences of that pass only. Only this thread uses the scheduler, the slots
    and the decoder. Where several engines share the machine's cores, `turn` reserves the cores for a step.
    """

    def __init__(
        self,
        slots: Slots,
        decoder: Decoder,
        limits: StepLimits,
        admission: Admission,
        observer: Observer,
        clock: Callable[[], float] = time.monotonic,
        turn: Callable[[], AbstractContextManager[None]] = nullcontext,
        longest: int = 4096,
    ) -> None:
        super().__init__("decoder", slots)
        self._decoder = decoder
        self._admission = admission
        self._observer = observer
        self._clock = clock
        self._turn = turn
        self.scheduler = Scheduler(decoder.cache, slots, limits, self._gone, self._fail, longest)
        # `_changed` guards these too.
        self._incoming: list[TextSequence] = []
        self._left = self._ended = False

    def admit(self, sequences: Sequence[TextSequence]) -> None:
        """Add the sequences of a call. Raise Draining if the thread has ended."""
        with self._changed:
            if self._ended:
                raise Draining("the engine has stopped and computes nothing more; try another replica")
            self._incoming += sequences
            self._changed.notify()

    def leave(self) -> None:
        """Free what sequences hold that are gone, before the next step."""
        with self._changed:
            self._left = True
            self._changed.notify()

    def loop(self) -> None:
        """Step until the thread is stopped."""
        try:
            while self._wait():
                self.step()
        finally:
            with self._changed:
                self._ended = True

    def step(self) -> None:
        """Take in new work, compute chunks of prompts, then one token of every sequence that decodes."""
        self._take_in()
        with self._turn():
            self.scheduler.fill()
            if prompts := self.scheduler.prompts():
                self._compute(prompts)
            if decodes := self.scheduler.decodes():
                self._compute(decodes)

    def _wait(self) -> bool:
        """Wait for work. Return False once the thread is stopped and no sequence is left."""
        with self._changed:
            while not (self._incoming or len(self.scheduler) or self._left or self._dropping or self._placing):
                if self._stopping:
                    return False
                self._changed.wait()
            return True

    def _take_in(self) -> None:
        with self._changed:
            incoming, self._incoming = self._incoming, []
            left, self._left = self._left, False
        self.change_slots()
        for sequence in incoming:
            self.scheduler.put(sequence)
        if left:
            self.scheduler.purge()

    def _gone(self, sequence: TextSequence) -> bool:
        if not sequence.left and (late := self._clock() - sequence.deadline) > 0:
            seconds = sequence.deadline - sequence.arrived
            message = (
                f"the answer was not complete within {seconds + late:.1f} s; ask for fewer tokens, or "
                "try again later"
            )
            self._fail(sequence, Expired(message))
        return sequence.left

    def _fail(self, sequence: TextSequence, error: EngineError) -> None:
        if not sequence.left:
            sequence.left = True
            sequence.deliver(error)

    def _compute(self, chosen: Sequence[tuple[Lane, Segment]]) -> None:
        """Run one pass, and give each sequence whose tokens are all computed its next token."""
        began = self._clock()
        waits = self._start(chosen, began)
        try:
            logits = self._decoder.run([segment for _, segment in chosen])
        except Exception as error:  # a runner can raise anything: this pass fails and the engine goes on
            for lane, _ in chosen:
                self._fail(lane.sequence, RunnerFault.caused("the decoder failed on this pass", error))
                self.scheduler.drop(lane)
            return
        seconds = self._clock() - began
        tokens = sum(len(segment.source) + len(segment.tokens) for _, segment in chosen)
        adapters = len({lane.sequence.digest for lane, _ in chosen})
        self._observer.batch(BatchStats(len(chosen), adapters, tokens, tokens, seconds, waits))
        self._admission.ran(tokens, seconds)
        ready = []
        for i, (lane, segment) in enumerate(chosen):
            lane.sequence.computed += len(segment.tokens)
            if not lane.sequence.pending:
                ready.append((lane, i))
        if ready:
            choices = self._choose([lane for lane, _ in ready], logits[[i for _, i in ready]])
            for (lane, _), choice in zip(ready, choices, strict=True):
                self._take(lane, choice)

    def _choose(self, lanes: Sequence[Lane], logits: Array) -> Sequence[TokenChoice | EngineError]:
        try:
            return choose_all([lane.sequence.sampler for lane in lanes], logits)
        except Exception as error:  # a fault of the sampling fails these sequences and the engine goes on
            return [RunnerFault.caused("no token could be chosen", error)] * len(lanes)

    def _take(self, lane: Lane, choice: TokenChoice | EngineError) -> None:
        """Give a sequence its next token, or the error that ends it."""
        sequence = lane.sequence
        sampler = sequence.sampler
        try:
            if isinstance(choice, EngineError):
                raise choice
            sampler.accept(choice.token)
        except EngineError as error:
            self._fail(sequence, error)
            self.scheduler.drop(lane)
            return
        sequence.tokens.append(choice.token)
        finish = sampler.finish_reason(choice.token)
        if not sequence.left:
            sequence.deliver(Step(choice, finish, sampler.is_end(choice.token)))
        if finish is not None:
            sequence.left = True
            self.scheduler.finish(lane)

    def _start(self, chosen: Sequence[tuple[Lane, Segment]], now: float) -> list[tuple[Priority, float]]:
        """Note that the sequences wait no more. Return the waits of those that begin with this pass."""
        waits = []
        for lane, _ in chosen:
            sequence = lane.sequence
            # A sequence that lost its row computes its prompt again.
            if not sequence.counted:
                sequence.counted = True
                self._admission.take(sequence.ticket, sequence.given)
                if not sequence.verifying:
                    waits.append((sequence.priority, now - sequence.arrived))
        return waits
