"""What a container engine does, on a machine without one: a Dockerfile's steps in a root file system of its own.

The base image's part is played by this machine: its /usr, /etc and /opt, and the Python that runs the tests. What
the steps write lands in a folder, never on the machine. Needs root on Linux, for mounts and chroot.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

_FROM_MACHINE = ("usr", "etc", "opt")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LINKS = ("bin", "sbin", "lib", "lib64")

# The folder, this Python's prefix, pip's cache, a volume for /data or nothing, the user; then what runs. With a
# volume the rest is read-only, /tmp too.
_ENTER = f"""
set -e
folder=$1 root=$1/root python=$2 cache=$3 volume=$4 user=$5
shift 5
mount --bind $root $root
for name in {" ".join(_FROM_MACHINE)}; do
  mount -t overlay overlay -o lowerdir=/$name,upperdir=$folder/$name,workdir=$folder/.$name $root/$name
done
mkdir -p $root$python $root/root/.cache/pip
mount --bind $python $root$python
mount -o remount,bind,ro $root$python
mount --rbind /dev $root/dev
mount --rbind /sys $root/sys
mount -t proc proc $root/proc
if [ -n "$volume" ]; then
  mount --bind $volume $root/data
  for name in {" ".join(_FROM_MACHINE)}; do mount -o remount,ro $root/$name; done
  mount -o remount,bind,ro $root
else
  mount --bind $cache $root/root/.cache/pip
fi
exec chroot --userspec=$user --groups= $root "$@"
"""


def can_build() -> bool:
    """Whether this machine lets the tests mount and change root."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    probe = ["unshare", "--mount", "--pid", "--fork", "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


@dataclass
class Image:
    """A root file system, and how a container of it starts."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = "0:0"
    commands: dict[str, str] = field(default_factory=dict)

    def command(self, *arguments: str, volume: Path | None = None, **environment: str) -> list[str]:
        """The command line that runs `arguments` in the image as its user, the first process of a namespace."""
        variables = {**self.environment, **environment}
        inside = ["env", "-i", f"--chdir={self.workdir}", *(f"{k}={v}" for k, v in variables.items()), *arguments]
        cache = Path("~/.cache/pip").expanduser()
        cache.mkdir(parents=True, exist_ok=True)
        given = [self.folder, sys.base_prefix, cache, volume or "", self.user]
        enter = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", _ENTER, "sh"]
        return [*enter, *map(str, given), *inside]

    def start(self, volume: Path, *arguments: str, **environment: str) -> list[str]:
        """The command line of a container with a read-only root: ENTRYPOINT, and CMD where no arguments are."""
        command = [*json.loads(self.commands["ENTRYPOINT"]), *(arguments or json.loads(self.commands["CMD"]))]
        return self.command(*command, volume=volume, HOME="/home/bentoml", **environment)

    def health_check(self, volume: Path, **environment: str) -> list[str]:
        """The command line of HEALTHCHECK."""
        shell = self.commands["HEALTHCHECK"].partition("CMD ")[2]
        return self.command("sh", "-c", shell, volume=volume, **environment)


def instructions(dockerfile: str) -> Iterator[tuple[str, str]]:
    """A Dockerfile's instructions in order, continued lines joined."""
    lines = [line for line in dockerfile.splitlines() if not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            yield word.upper(), rest.strip()


@contextmanager
def built(folder: Path, context: Path, dockerfile: str, arguments: Mapping[str, str]) -> Iterator[Image]:
    """The image of a Dockerfile and its context, with these build arguments; removed at the end."""
    image = Image(folder)
    _lay_out(folder)
    try:
        image.environment["PATH"] = f"{sys.base_prefix}/bin:{_PATH}"
        build_time = {k: v for k, v in os.environ.items() if k.startswith("PIP_")} | {"HOME": "/root"}
        for word, rest in instructions(dockerfile):
            _step(image, build_time, word, rest, context, arguments)
        yield image
    finally:
        subprocess.run(["rm", "-rf", folder], check=True)


def _lay_out(folder: Path) -> None:
    root = folder / "root"
    for name in ("home", "tmp", "root", "proc", "dev", "sys", "var", "run", *_FROM_MACHINE):
        (root / name).mkdir(parents=True)
    for name in _FROM_MACHINE:
        (folder / name).mkdir()
        (folder / f".{name}").mkdir()
    for name in _LINKS:
        if Path("/", name).is_symlink():
            (root / name).symlink_to(Path("/", name).readlink())
    folder.chmod(0o755)
    (root / "tmp").chmod(0o1777)


def _step(
    image: Image, build_time: dict[str, str], word: str, rest: str, context: Path, arguments: Mapping[str, str]
) -> None:
    root = image.folder / "root"
    name, _, value = rest.partition("=")
    known = {**build_time, **image.environment}
    if word == "ARG":
        build_time[name] = arguments.get(name, _expanded(value, known))
    elif word == "ENV":
        image.environment[name] = _expanded(value, known)
    elif word == "RUN":
        _run(image.command("sh", "-c", rest, **{**build_time, **image.environment}), rest)
    elif word == "WORKDIR":
        image.workdir = _expanded(rest, known)
    elif word == "COPY":
        source, target = (part for part in shlex.split(rest) if not part.startswith("--"))
        place = root / image.workdir.lstrip("/") / target
        if (context / source).is_dir():
            shutil.copytree(context / source, place, dirs_exist_ok=True)
        else:
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(context / source, place)
    elif word == "USER":
        image.user = rest
    elif word in ("ENTRYPOINT", "CMD", "HEALTHCHECK", "VOLUME", "STOPSIGNAL", "EXPOSE"):
        image.commands[word] = rest
    elif word != "FROM":
        raise ValueError(f"{word} {rest}: an instruction that these tests do not know")


def _expanded(text: str, known: Mapping[str, str]) -> str:
    return re.sub(r"\$\{?(\w+)\}?", lambda match: known.get(match[1], ""), text.strip('"'))


def _run(command: Sequence[str], shown: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        said = f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        raise RuntimeError(f"RUN {shown}\nended with {done.returncode}:\n{said}")
