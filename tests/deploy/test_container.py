"""A container, as far as a machine without an engine goes: the bento's Dockerfile carried out, then its start.

The bento's own install step fills a fresh environment; the server runs as the image's user, first process of a
namespace, its root file system read-only but for one volume.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from rootstock.service.composition.demo_adapters import DEMO
from tests.bounds import HANG
from tests.deploy.image import Image, built, can_build
from tests.live_server import upload
from tests.process_tree import listeners
from tests.serve_process import free_port, until_ready

pytestmark = [
    pytest.mark.slow,
    # The packages of a whole environment are fetched and installed.
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not can_build(), reason="mounts and chroot need root on Linux"),
]
KEY = {"Authorization": "Bearer secret-0123456789"}


@pytest.fixture(scope="module")
def image(bento: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    folder = bento("bentofile.yaml")
    dockerfile = (folder / "env" / "docker" / "Dockerfile").read_text()
    # torch from where pip is configured to look, not PyTorch's own index; pip's cache saves the fetching.
    arguments = {"TORCH_INDEX": "", "PIP_NO_CACHE_DIR": ""}
    with built(tmp_path_factory.mktemp("image"), folder, dockerfile, arguments) as image:
        yield image


@pytest.fixture
def volume(image: Image, tmp_path: Path) -> Path:
    folder = tmp_path / "volume"
    folder.mkdir()
    os.chown(folder, *(int(part) for part in image.user.split(":")))
    return folder


class Container:
    def __init__(self, process: subprocess.Popen[str], client: httpx.Client) -> None:
        self.process = process
        self.client = client

    @property
    def pids(self) -> list[int]:
        """The first process and its only child, the worker, as this machine numbers them."""
        pids = []
        pid = self.process.pid
        for _ in range(2):
            (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            pids.append(pid := int(child))
        return pids

    def stop(self) -> None:
        """SIGTERM to the first process, as an engine does; returns when the container has ended."""
        if self.process.poll() is None:
            os.kill(self.pids[0], signal.SIGTERM)
            self.process.wait(HANG)


@contextmanager
def running(image: Image, volume: Path) -> Iterator[Container]:
    port = free_port()
    command = image.start(volume, ROOTSTOCK_ADMIN_KEY="secret-0123456789", ROOTSTOCK_PORT=str(port))
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        until_ready(process)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=HANG) as client:
                container = Container(process, client)
                yield container
                container.stop()
        finally:
            process.kill()


def health(image: Image, volume: Path, container: Container) -> int:
    command = image.health_check(volume, ROOTSTOCK_PORT=str(container.client.base_url.port))
    return subprocess.run(command, capture_output=True, check=False).returncode


def predicted(container: Container, model: str, text: str) -> str:
    answer = container.client.post("/v1/predict", json={"model": model, "inputs": text})
    assert answer.status_code == 200, answer.text
    label: str = answer.json()["predictions"][0]["label"]
    return label


@pytest.mark.parametrize("arguments", [(), ("serve",)], ids=["rootstock serve", "bentoml serve"])
def test_without_an_admin_key_a_container_says_so_and_ends(
    image: Image, volume: Path, arguments: tuple[str, ...]
) -> None:
    command = image.start(volume, *arguments)
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG, check=False)
    assert done.returncode != 0
    said = done.stderr.strip().splitlines()
    assert "there is no ROOTSTOCK_ADMIN_KEY" in said[-1]
    if not arguments:
        assert (done.returncode, len(said)) == (2, 1)


def test_a_container_serves_the_demo_adapters_and_uploads_as_its_own_user_without_torch(
    image: Image, volume: Path
) -> None:
    with running(image, volume) as container:
        assert predicted(container, "review-sentiment", "Wonderful, I would buy it again.") == "positive"
        assert predicted(container, "support-intents", "I want my money back") == "refund_request"
        bundle = (DEMO / "review-sentiment.zip").read_bytes()
        assert upload(container.client, "mood", bundle).status_code == 401
        container.client.headers.update(KEY)
        assert upload(container.client, "mood", bundle).status_code == 201
        assert health(image, volume, container) == 0
        for pid in container.pids:
            status = Path(f"/proc/{pid}/status").read_text()
            uids = next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1:]
            assert set(uids) == {image.user.split(":")[0]}
            assert "libtorch" not in Path(f"/proc/{pid}/maps").read_text()
    # The export is the image's: none was made here. Nothing else was written either.
    assert {path.name for path in volume.iterdir()} == {"rootstock", "bentoml"}
    assert not (volume / "rootstock" / "foundations").exists()
    with running(image, volume) as again:
        assert predicted(again, "mood", "Wonderful, I would buy it again.") == "positive"


def test_a_container_listens_on_its_port_alone(image: Image, volume: Path) -> None:
    with running(image, volume) as container:
        found = listeners(container.process)
        assert {port for _, port in found.ports} == {container.client.base_url.port}
        assert not found.paths


def test_the_root_file_system_of_these_containers_is_read_only(image: Image, volume: Path) -> None:
    script = "touch /home/bentoml/x; touch /tmp/x; touch /data/x"
    command = image.command("sh", "-c", script, volume=volume)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr.count("Read-only file system") == 2
    assert (volume / "x").exists()


def test_sigterm_turns_readiness_off_while_requests_are_still_answered_then_the_container_ends(
    image: Image, volume: Path
) -> None:
    with running(image, volume) as container:
        os.kill(container.pids[0], signal.SIGTERM)
        while container.client.get("/readyz").status_code == 200:
            pass
        assert predicted(container, "review-sentiment", "Wonderful, I would buy it again.") == "positive"
        assert health(image, volume, container) != 0
        assert container.process.wait(HANG) == 0


def test_a_container_ends_when_its_worker_is_killed(image: Image, volume: Path) -> None:
    with running(image, volume) as container:
        os.kill(container.pids[1], signal.SIGKILL)
        assert container.process.wait(HANG) != 0


def test_the_environment_has_the_lock_s_releases_and_nothing_of_cuda(image: Image, volume: Path) -> None:
    freeze = image.command("pip", "freeze", "--exclude-editable", volume=volume)
    done = subprocess.run(freeze, capture_output=True, text=True, check=True)
    installed = dict(line.split("==") for line in done.stdout.splitlines() if "==" in line)
    assert installed["torch"].split("+")[0] == "2.13.0"
    assert not [name for name in installed if name.startswith(("nvidia-c", "cuda", "triton"))]
    locked = dict(
        line.lower().replace("_", "-").split("==")
        for line in (Path(__file__).parents[2] / "constraints.txt").read_text().splitlines()
    )
    versions = {name.lower().replace("_", "-"): version.split("+")[0] for name, version in installed.items()}
    # BentoML brings uv, which the server does not use.
    assert {n: v for n, v in versions.items() if locked.get(n) != v}.keys() <= {"uv"}
    assert not {"pytest", "locust", "matplotlib", "mlflow-skinny"} & versions.keys()
