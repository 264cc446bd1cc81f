"""What the tests of tasks share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from rootstock.service.engine.encode.modalities.text import Tokenizer
from tests.service.engine.tiny import our_tokenizer


@pytest.fixture(scope="session")
def ours() -> Tokenizer:
    return our_tokenizer()


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """A model as small as the tiny one is slower on two."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
