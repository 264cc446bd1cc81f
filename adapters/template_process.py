"""Chat templates of bundles, which are code of uploaders: they are rendered in a process with limits."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import threading
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

from rootstock.adapters.chat_template import Message, with_system
from rootstock.adapters.child_process import module_command
from rootstock.adapters.spec import Prompting, Rejected
from rootstock.adapters.template_worker import (
    CPU_SECONDS,
    MAX_TEXT_CHARACTERS,
    MEMORY_BYTES,
    OUT_OF_MEMORY,
    SECONDS,
)

# The worker finds Python's packages and the local time by these. It gets no key and no setting of the server.
_VARIABLES = (
    "PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "LC_TIME", "TZ",
)  # fmt: skip
# JSON writes a control character in six bytes.
_MAX_ANSWER_BYTES = 6 * MAX_TEXT_CHARACTERS + 2**12
# A chat's text may have this many characters, and twice as many as the template and the messages together.
_LEAST_LIMIT = 2**16
# The exit codes of a process that a template has brought to a limit.
_BY_TEMPLATE = (OUT_OF_MEMORY, -signal.SIGPROF, -signal.SIGALRM)
_PROBE = ({"role": "user", "content": "Hello"},)


class TemplateFault(ValueError):
    """A chat template that gives no text for a chat: it refuses the messages, is not valid or passes a limit."""


class TemplateProcess:
    """A process that renders one chat at a time within the limits of template_worker.py.

    It starts with the first chat, and again after one that passed a limit. It ends with this object.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="chat-template")
        self._turns: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._process: subprocess.Popen[bytes] | None = None
        self._end: weakref.finalize[Any, TemplateProcess] | None = None

    async def render(
        self,
        source: str,
        special: Mapping[str, str | None],
        messages: Sequence[Message],
        tools: Sequence[Any] | None = None,
        reply: bool = True,
    ) -> str:
        """Return the text of a chat as `text` does.

        A thread of this object waits, so that templates that take long keep no other thread. Each template has
        one chat in the queue, so that one template does not keep the others waiting.
        """
        turn = self._turns.setdefault(source, asyncio.Lock())
        async with turn:
            call = partial(self.text, source, special, messages, tools, reply)
            return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def text(
        self,
        source: str,
        special: Mapping[str, str | None],
        messages: Sequence[Message],
        tools: Sequence[Any] | None = None,
        reply: bool = True,
    ) -> str:
        """Return the text of a chat, as `ChatTemplate.text` does. Raise TemplateFault if there is none."""
        chat = {"source": source, "special": special, "messages": messages, "tools": tools, "reply": reply}
        request = json.dumps(chat, default=dict).encode() + b"\n"
        with self._lock:
            answer = self._answer(request)
        if "text" not in answer:
            raise TemplateFault(answer["refusal"])
        text, most = answer["text"], 2 * len(request) + _LEAST_LIMIT
        if len(text) > most:
            raise TemplateFault(f"it writes {len(text)} characters and the limit for these messages is {most}")
        return text

    def _answer(self, request: bytes, again: bool = True) -> dict[str, str]:
        fresh = self._process is None
        process = self._running()
        line = _exchange(process, request)
        if line.endswith(b"\n"):
            answer: dict[str, str] = json.loads(line)
            return answer
        self._stop()
        if process.returncode not in _BY_TEMPLATE and again:
            # The system has ended the process, which says nothing of the template.
            return self._answer(request, again=False)
        if process.returncode == OUT_OF_MEMORY and not fresh:
            # Earlier chats may have left too little for this one.
            return self._answer(request)
        return {"refusal": _reason(process.returncode)}

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._stop()
        self._process = subprocess.Popen(  # noqa: S603 - no shell
            module_command("rootstock.adapters.template_worker"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in _VARIABLES if name in os.environ},
            # A Ctrl-C in the terminal of a server reaches the server alone, which then answers what it admitted.
            start_new_session=True,
        )
        self._end = weakref.finalize(self, _end, self._process)
        return self._process

    def _stop(self) -> None:
        if self._end is not None:
            self._end()
        self._process = self._end = None


def probe_of(prompting: Prompting) -> Sequence[Message]:
    """Return the chat that every template of a bundle must render: one user's message and the system prompt."""
    return with_system(_PROBE, prompting.system_prompt)


def refused_template(fault: TemplateFault) -> Rejected:
    """Return the refusal of an adapter whose template does not render the probe."""
    return Rejected(
        "template",
        "chat_template",
        f"it renders no chat of one user's message: {fault}; correct the template, or leave it out, so that the "
        "foundation's applies",
    )


def check_template(templates: TemplateProcess, prompting: Prompting, special: Mapping[str, str | None]) -> None:
    """Raise Rejected (check "template") if a bundle has a chat template that does not render the probe."""
    if prompting.chat_template is None:
        return
    try:
        templates.text(prompting.chat_template, special, probe_of(prompting))
    except TemplateFault as fault:
        raise refused_template(fault) from None


def _exchange(process: subprocess.Popen[bytes], request: bytes) -> bytes:
    """Return the process's line for a request; less than a line if the process has ended."""
    if process.stdin is None or process.stdout is None:
        raise ValueError("the process has no pipes")
    try:
        process.stdin.write(request)
        process.stdin.flush()
        return process.stdout.readline(_MAX_ANSWER_BYTES)
    except BrokenPipeError:
        return b""


def _reason(code: int) -> str:
    """Return why a template gave no text, from the exit code of the process."""
    if code == OUT_OF_MEMORY:
        return f"it needs more than {MEMORY_BYTES // 2**20} MiB of memory"
    if code in (-signal.SIGPROF, -signal.SIGALRM):
        return f"it takes longer than {CPU_SECONDS:g} s of processor time or {SECONDS:g} s"
    return f"it ended the process that renders it (code {code})"


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(BrokenPipeError), process:
        process.kill()
