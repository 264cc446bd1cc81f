"""Renders chat templates of uploaders, one chat at a time, in a process that ends at its limits.

Each line of standard input is a chat, and each line of standard output is its text or why there is none. The
kernel ends the process when a chat takes too long: no Python code has to run for that. TemplateProcess starts
this module.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from contextlib import suppress
from functools import lru_cache
from typing import Any

from rootstock.adapters.chat_template import ChatTemplate, compile_template

# The limits of one chat. A foundation's tokenizer reads the longest prompt of a client in about a second.
CPU_SECONDS = 1.0
SECONDS = 10.0
# Template and messages together. The longest prompt of a client has half as many characters.
MAX_TEXT_CHARACTERS = 2**19
# Address space of the whole process; without a chat it takes about 30 MiB.
MEMORY_BYTES = 256 * 2**20
# The exit code of a process that has reached its limit of memory.
OUT_OF_MEMORY = 4
_MAX_MESSAGE_CHARACTERS = 500
_KEPT = 16


def main() -> None:
    """Answer chats until standard input ends."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in (signal.SIGPROF, signal.SIGALRM):
        # A process inherits the signals that its parent ignores.
        signal.signal(number, signal.SIG_DFL)
    with suppress(ImportError):
        # The time of the first chat does not include the import of jinja2.
        compile_template("")
    for line in sys.stdin.buffer:
        _allow(CPU_SECONDS, SECONDS)
        answer = _answer(line)
        _allow(0, 0)
        sys.stdout.buffer.write(answer + b"\n")
        sys.stdout.buffer.flush()


def _allow(cpu_seconds: float, seconds: float) -> None:
    """Let the kernel end this process after so much processor time or time from now on; zero is no limit."""
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _answer(line: bytes) -> bytes:
    try:
        return _text(**json.loads(line))
    except MemoryError:
        # Objects of this chat may stay behind, and the next one would find too little memory.
        os._exit(OUT_OF_MEMORY)
    except Exception as error:  # a template can raise anything
        message = str(error)[:_MAX_MESSAGE_CHARACTERS] or type(error).__name__
    return json.dumps({"refusal": message.encode("utf-8", "replace").decode()}).encode()


def _text(source: str, special: dict[str, str | None], reply: bool, **chat: Any) -> bytes:
    text = _template(source, tuple(special.items())).text(chat["messages"], chat["tools"], reply)
    if len(text) > MAX_TEXT_CHARACTERS:
        raise ValueError(f"it writes {len(text)} characters and the limit is {MAX_TEXT_CHARACTERS}")
    # Half a surrogate pair, which no tokenizer reads, has no UTF-8 form.
    return json.dumps({"text": text}, ensure_ascii=False).encode("utf-8")


@lru_cache(maxsize=_KEPT)
def _template(source: str, special: tuple[tuple[str, str | None], ...]) -> ChatTemplate:
    return ChatTemplate(source, dict(special))


if __name__ == "__main__":
    main()
