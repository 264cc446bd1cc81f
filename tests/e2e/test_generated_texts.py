"""Adapters generate over HTTP as PEFT does, while others are uploaded, replaced, deleted and evicted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from transformers import AutoTokenizer

from rootstock.service.settings import Settings
from tests.chat_foundation import needs_chat
from tests.live_server import run_server, upload
from tests.marks import slow_except
from tests.peft_adapters import PeftAdapter
from tests.peft_texts import PeftText, peft_texts, save_mixed
from tests.service.engine.generate import families, rewriters

ADAPTERS = 16
# Two slots are reserved, so that three of the adapters have one at a time.
SLOTS = 5
TEXTS = ("Where is my parcel?", "Ada Lovelace met Charles Babbage in London in June 1833.")
SAMPLED = {"temperature": 1.0, "top_p": 0.9, "seed": 7}
# The place of the foundation's own answers, and the mark of a name without an adapter.
FOUNDATION, DELETED = -1, -2
# Logits agree within 1e-3 + 1e-3·|x|, and a log-probability is the difference of two.
TOLERANCE = 5e-3


@dataclass(frozen=True)
class Subject:
    """A foundation, prompts, adapters, and PEFT's answers of each of them and at last of the foundation alone."""

    folder: Path
    prompts: Sequence[Sequence[int]]
    saved: Sequence[PeftAdapter]
    expected: Sequence[Sequence[PeftText]]
    max_tokens: int


def _subject(
    folder: Path,
    root: Path,
    task_type: str,
    targets: tuple[list[str], str],
    adapters: int = ADAPTERS,
    max_tokens: int = 8,
) -> Subject:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompts = [tokenizer.encode(text) for text in TEXTS]
    saved = save_mixed(folder, root, task_type, *targets, count=adapters)
    expected = [peft_texts(folder, one, task_type, prompts, max_tokens) for one in (*saved, None)]
    return Subject(folder, prompts, saved, expected, max_tokens)


class ChurnClients:
    """Threads that ask for completions of models while the test changes the registry.

    `published` lists for each name the adapters that have been uploaded under it, in order, by their places in
    the subject. After the name's deletion the last one is DELETED.
    """

    def __init__(self, client: httpx.Client, subject: Subject, threads: ThreadPoolExecutor) -> None:
        self._client = client
        self._subject = subject
        self._threads = threads
        self._digests: dict[str, int] = {}
        self.published: dict[str, list[int]] = {}
        self.asked: list[tuple[str, int, int, Future[httpx.Response]]] = []

    @property
    def models(self) -> list[str]:
        """Return the names that are published now, and the foundation's."""
        return ["foundation", *(name for name, adapters in self.published.items() if adapters[-1] != DELETED)]

    def publish(self, name: str, adapter: int) -> None:
        answer = upload(self._client, name, self._subject.saved[adapter].zip())
        assert answer.status_code == 201, answer.text
        self._digests[answer.json()["digest"]] = adapter
        self.published.setdefault(name, []).append(adapter)

    def delete(self, name: str) -> None:
        assert self._client.delete(f"/v1/adapters/{name}").status_code == 204
        self.published[name].append(DELETED)
        assert self.complete(name, 0).status_code == 404

    def complete(self, model: str, prompt: int, **sampling: Any) -> httpx.Response:
        body = {"max_tokens": self._subject.max_tokens, "temperature": 0, "logprobs": 0, **sampling}
        return self._client.post(
            "/v1/completions", json={"model": model, "prompt": list(self._subject.prompts[prompt]), **body}
        )

    def ask(self, models: Sequence[str]) -> None:
        """Ask every model for an answer to one of the prompts in turn, and wait for none."""
        for model in models:
            prompt = len(self.asked) % len(self._subject.prompts)
            known = len(self.published.get(model, ())) - 1
            self.asked.append((model, prompt, known, self._threads.submit(self.complete, model, prompt)))

    def wait(self) -> None:
        """Return once everything that was asked is answered."""
        wait([future for *_, future in self.asked])

    def check(self) -> None:
        """Compare every answer with PEFT's for an adapter that the name has meant since it was asked for."""
        for model, prompt, known, future in self.asked:
            answer = future.result()
            meant = [FOUNDATION] if model == "foundation" else self.published[model][known:]
            if answer.status_code == 404:
                assert DELETED in meant, (model, answer.text)
                continue
            assert answer.status_code == 200, answer.text
            adapter = self._digests.get(answer.json()["digest"], FOUNDATION)
            assert adapter in meant, (model, prompt)
            _check(answer, self._subject.expected[adapter][prompt], (model, adapter, prompt))


def _check(answer: httpx.Response, expected: PeftText, what: object) -> None:
    choice = answer.json()["choices"][0]
    tokens, logprobs = choice["logprobs"]["tokens"], choice["logprobs"]["token_logprobs"]
    count = len(expected.tokens)
    assert tokens[:count] == expected.tokens, what
    assert logprobs[:count] == pytest.approx(expected.logprobs, abs=TOLERANCE, rel=1e-3), what
    assert expected.tied or len(tokens) == count, what


def _text(answer: httpx.Response) -> tuple[str, list[str]]:
    choice = answer.json()["choices"][0]
    return choice["text"], choice["logprobs"]["tokens"]


def _evictions(client: httpx.Client) -> float:
    line = re.search(r'^rootstock_evictions_total\{.*tier="slot".*\} (\S+)$', client.get("/metrics").text, re.M)
    assert line is not None
    return float(line[1])


def _answers_like_peft(home: Path, subject: Subject) -> None:
    """Check all answers of a server whose adapters change while it answers."""
    adapters = len(subject.saved)
    answers = [answer for answers in subject.expected for answer in answers]
    whole = [tuple(answer.logprobs) for answer in answers if not answer.tied]
    assert len(whole) >= 0.75 * len(answers), "many near ties: little would be compared"
    assert len(set(whole)) == len(whole), "two adapters answer alike: a mix-up would not be seen"
    settings = Settings(
        home=home, foundation=str(subject.folder), demo=False, log_level="error", slots=SLOTS, threads=1
    )
    with run_server(settings) as running, running.client() as client, ThreadPoolExecutor(16) as threads:
        clients = ChurnClients(client, subject, threads)
        for i in range(adapters):
            clients.publish(f"a{i}", i)
            clients.ask([f"a{i // 2}", f"a{i}"])
        clients.wait()
        sampled = ["foundation", "a1", "a4"]
        alone = [_text(clients.complete(model, 0, **SAMPLED)) for model in sampled]
        clients.ask(clients.models)
        among = [threads.submit(clients.complete, model, 0, **SAMPLED) for model in sampled]
        # The first name goes on to mean the last one's adapter too, and the last one goes and comes back.
        last = f"a{adapters - 1}"
        clients.publish("a0", adapters - 1)
        clients.ask(["a0", last, *clients.models[2:5]])
        clients.delete(last)
        clients.ask(["a0", *clients.models[2:5]])
        clients.publish(last, 0)
        clients.ask(clients.models)
        clients.check()
        assert [_text(future.result()) for future in among] == alone
        assert _evictions(client) > adapters


@pytest.mark.parametrize("family", slow_except(["llama"], families.FAMILIES))
def test_a_model_that_continues_texts_answers_as_peft_does_while_its_adapters_change(
    family: str, tmp_path: Path
) -> None:
    folder = families.make_decoder(family, tmp_path / "model").folder
    targets = families.TARGETS.get(family, families.USUAL_TARGETS)
    _answers_like_peft(tmp_path / "home", _subject(folder, tmp_path, "CAUSAL_LM", targets))


@pytest.mark.parametrize("family", slow_except(["t5"], rewriters.REWRITERS))
def test_a_model_that_rewrites_texts_answers_as_peft_does_while_its_adapters_change(
    family: str, tmp_path: Path
) -> None:
    folder = rewriters.make_rewriter(family, tmp_path / "model").folder
    targets = rewriters.TARGETS.get(family, rewriters.USUAL_TARGETS)
    _answers_like_peft(tmp_path / "home", _subject(folder, tmp_path, "SEQ_2_SEQ_LM", targets))


@needs_chat
@pytest.mark.slow
@pytest.mark.parametrize("adapters", [5, ADAPTERS])
def test_the_chat_foundation_answers_as_peft_does_while_its_adapters_change(
    adapters: int, chat_foundation: Path, tmp_path: Path
) -> None:
    subject = _subject(chat_foundation, tmp_path, "CAUSAL_LM", families.USUAL_TARGETS, adapters, 3)
    _answers_like_peft(tmp_path / "home", subject)
