"""Runs a real S3 server on a free port: moto's, as a process."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.bounds import HANG
from tests.serve_process import free_port

SECRET = "s3cret-Acce55Key"


class ObjectStorage:
    """An S3 server. `environment` is what a program needs to reach it with fsspec."""

    def __init__(self, port: int) -> None:
        self._numbers = itertools.count(1)
        self.endpoint = f"http://127.0.0.1:{port}"
        self.environment = {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "rootstock",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            # The configuration of whoever runs the tests does not count.
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def new_bucket(self) -> str:
        """Make an empty bucket, and return its name."""
        name = f"bundles-{next(self._numbers)}"
        httpx.put(f"{self.endpoint}/{name}").raise_for_status()
        return name


@contextmanager
def object_storage(log: Path) -> Iterator[ObjectStorage]:
    """Start an S3 server, yield it once it answers, and stop it at the end. Skip the test without moto."""
    pytest.importorskip("moto", reason="moto is not installed: pip install 'moto[s3,server]'")
    port = free_port()
    program = "from moto.server import main; main()"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", program, "-H", "127.0.0.1", "-p", str(port)], stdout=output, stderr=output
        )
        try:
            storage = ObjectStorage(port)
            deadline = time.monotonic() + HANG
            while True:
                try:
                    httpx.get(storage.endpoint)
                    break
                except httpx.TransportError:
                    assert process.poll() is None, log.read_text()
                    assert time.monotonic() < deadline, "the S3 server does not answer"
                    time.sleep(0.05)
            yield storage
        finally:
            process.kill()
            process.wait()
