"""`chat`: streamed answers of 1, 4 and 16 clients, then at a constant rate, while versions are published."""

from __future__ import annotations

from rootstock.loadtest.fixtures.setup import BenchmarkSetup
from rootstock.loadtest.load.chat_preparation import KIND, ChatNeeds, chat_fixture
from rootstock.loadtest.load.faults import faults_row
from rootstock.loadtest.load.plan import Phase
from rootstock.loadtest.load.texts import real_texts
from rootstock.loadtest.load.traffic import CHAT
from rootstock.loadtest.load.trial import Trial, run
from rootstock.loadtest.measure.outcome import Outcome
from rootstock.loadtest.measure.row import BenchmarkRow, Measure, Pair

_USERS = (1, 4, 16)
# This arrival rate leaves room for passes that take longer.
_OF_CAPACITY = 0.6


def chat(setup: BenchmarkSetup) -> Outcome:
    """Load for 30 s by 1, by 4 and by 16 clients, and for 30 s at 60 % of the last rate, over 8 adapters."""
    seconds = setup.length(full=30.0, quick=4.0)
    moves_s = 0.5 if setup.quick else 0.2
    phases = [
        Phase("warm", 1.0, users=1),
        *(
            Phase(_clients(users), seconds, users=users, calibrates=users == max(_USERS), moves_s=moves_s)
            for users in _USERS
        ),
        Phase("constant rate", seconds, of_capacity=_OF_CAPACITY, moves_s=moves_s),
    ]
    needs = ChatNeeds(
        adapters=setup.count(8, 3),
        moves=sum(-(-int(phase.moves_s * phase.seconds) // 2) for phase in phases),
        texts=real_texts(64),
        texts_each=setup.count(4, 1),
        max_tokens=setup.count(32, 8),
    )
    with chat_fixture(setup, needs) as fixture:
        trial = run(setup, fixture, phases, {CHAT: 1}, popularity="uniform")
    rows = [*token_rows(trial, needs), faults_row("chat", [trial])]
    return Outcome(rows, trial.stages(), trial.timeline())


def _clients(users: int) -> str:
    return f"{users} client{'s' if users > 1 else ''}"


def token_rows(trial: Trial, needs: ChatNeeds) -> list[BenchmarkRow]:
    """Return the tokens a second of each phase after the first, with its times."""
    rows = []
    for number, phase in list(enumerate(trial.phases))[1:]:
        figures = trial.of(number)
        if figures.streams is None:
            continue
        first, token = figures.streams.first_ms, figures.streams.token_ms
        rows.append(
            BenchmarkRow(
                benchmark="chat",
                title=f"tokens a second, {phase['name']}",
                top=f"tokens of right answers, greedy, at most {needs.max_tokens} each, streamed by "
                f"/v1/chat/completions; {needs.adapters} adapters of {KIND.text}, real texts",
                bottom="",
                unit="tokens/s",
                pairs=[Pair(figures.streams.tokens_s)],
                measure=Measure.TOP,
                notes=[
                    f"time to the first token {_spread(first)}; per further token {_spread(token)}",
                    f"{figures.counts['ok']} right answers, {figures.faults} faults, "
                    f"{figures.offered_s:.2f} requests/s",
                ],
                extra=figures.streams.to_json(),
            )
        )
    return rows


def _spread(percentiles: dict[int, float]) -> str:
    return ", ".join(f"p{p} {ms:.0f} ms" for p, ms in percentiles.items())
