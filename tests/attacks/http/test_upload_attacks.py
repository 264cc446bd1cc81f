"""Uploads that attack: each is refused with its check, publishes nothing and leaves nothing in the store."""

from __future__ import annotations

import io
import json
import stat
import struct
import zipfile
from collections.abc import Callable

import httpx
import pytest

from rootstock.adapters.bundle.archive import CARD, CONFIG, WEIGHTS
from tests.attacks.forge import raw_safetensors
from tests.live_server import upload
from tests.peft_adapters import PeftAdapter

Members = dict[str, bytes]


def zip_of(members: Members, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def link(members: Members) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in (CONFIG, WEIGHTS):
            archive.writestr(name, members[name])
        info = zipfile.ZipInfo(CARD)
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, b"/etc/passwd")
    return out.getvalue()


def config(members: Members, **changes: object) -> bytes:
    value = {**json.loads(members[CONFIG]), **changes}
    return zip_of({**members, CONFIG: json.dumps(value).encode()})


PICKLE = b"\x80\x04\x95\x1d" + bytes(7) + b"\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x04exit\x94\x85R."
ATTACKS: dict[str, Callable[[Members], bytes]] = {
    "nothing": lambda m: b"",
    "a pickle": lambda m: PICKLE,
    "a zip of nothing": lambda m: zip_of({}),
    "half a zip": lambda m: zip_of(m)[:-100],
    "a member outside": lambda m: zip_of({**m, "../../evil.py": b"x"}),
    "a member at the root": lambda m: zip_of({**m, "/etc/cron.d/evil": b"x"}),
    "a link": link,
    "pickled weights": lambda m: zip_of({CONFIG: m[CONFIG], "adapter_model.bin": PICKLE}),
    "a pickle as safetensors": lambda m: zip_of({**m, WEIGHTS: PICKLE}),
    "a bomb": lambda m: zip_of({**m, CARD: bytes(2**23)}),
    "a bomb of weights": lambda m: zip_of({**m, WEIGHTS: bytes(2**27)}),
    "a program": lambda m: zip_of({**m, "modeling.py": b"import os"}),
    "a thousand members": lambda m: zip_of({**m, **{f"{i}.txt": b"" for i in range(1000)}}),
    "a header of 2 ** 63 bytes": lambda m: zip_of({**m, WEIGHTS: struct.pack("<Q", 2**63) + b"{}"}),
    "a header that is deep": lambda m: zip_of({**m, WEIGHTS: raw_safetensors(b"[" * 10**5)}),
    "a tensor beyond the file": lambda m: zip_of(
        {**m, WEIGHTS: raw_safetensors({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 2**40]}})}
    ),
    "a tensor of 2 ** 64 numbers": lambda m: zip_of(
        {**m, WEIGHTS: raw_safetensors({"a": {"dtype": "F32", "shape": [2**32, 2**32], "data_offsets": [0, 0]}})}
    ),
    "a rank of millions": lambda m: config(m, r=10**6),
    "a negative rank": lambda m: config(m, r=-1),
    "a scale without end": lambda m: config(m, lora_alpha=10**400),
    "a pattern that explodes": lambda m: config(m, target_modules="(a+)+$" * 500),
    "a pattern of ranks that explodes": lambda m: config(m, rank_pattern={"(a|a)*" * 20 + "b": 2}),
    "another kind": lambda m: config(m, peft_type="PROMPT_TUNING"),
    "a key twice": lambda m: zip_of({**m, CONFIG: b'{"r": 4, ' + m[CONFIG].lstrip()[1:]}),
    "an encrypted member": lambda m: zip_of(m).replace(
        b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01"
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_upload_that_attacks_is_refused_and_publishes_nothing(
    attacker: httpx.Client, peft_saved: dict[str, PeftAdapter], name: str
) -> None:
    with zipfile.ZipFile(io.BytesIO(peft_saved["first"].zip())) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    answer = upload(attacker, "attack", ATTACKS[name](members))
    assert answer.status_code in (413, 422), answer.text
    error = answer.json()["error"]
    assert error["code"].startswith("rejected_") or answer.status_code == 413, error
    assert len(error["message"]) < 1000
    assert attacker.get("/v1/adapters/attack").status_code == 404


FORMS = {
    "no boundary": ("multipart/form-data", b"--x\r\n"),
    "an empty boundary": ("multipart/form-data; boundary=", b"--\r\n"),
    "another boundary": ("multipart/form-data; boundary=y", b"--x\r\n\r\n--x--\r\n"),
    "a boundary of 60,000 letters": ("multipart/form-data; boundary=" + "x" * 60_000, b"--" + b"x" * 60_000),
    "a part without headers": ("multipart/form-data; boundary=x", b"--x\r\n\r\nfoundation\r\n--x--\r\n"),
    "a part without a name": (
        "multipart/form-data; boundary=x",
        b"--x\r\nContent-Disposition: form-data\r\n\r\nfoundation\r\n--x--\r\n",
    ),
    "a header of a part without end": (
        "multipart/form-data; boundary=x",
        b"--x\r\nContent-Disposition: form-data; name=" + b"a" * 900_000,
    ),
    "100,000 parts": (
        "multipart/form-data; boundary=x",
        b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n' * 18_000,
    ),
    "a name with a line end": (
        "multipart/form-data; boundary=x",
        b'--x\r\nContent-Disposition: form-data; name="a\nb"; filename="c"\r\n\r\nx\r\n--x--\r\n',
    ),
    "a charset of nobody": (
        "multipart/form-data; boundary=x; charset=nobody",
        b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\nx\r\n--x--\r\n',
    ),
    "a field twice": (
        "multipart/form-data; boundary=x",
        b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\na\r\n' * 2 + b"--x--\r\n",
    ),
    "a name that is a file": (
        "multipart/form-data; boundary=x",
        b'--x\r\nContent-Disposition: form-data; name="name"; filename="a"\r\n\r\nx\r\n--x--\r\n',
    ),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("path", ["/v1/adapters", "/v1/predict"])
def test_a_form_that_is_none_is_a_4xx(attacker: httpx.Client, path: str, name: str) -> None:
    kind, body = FORMS[name]
    answer = attacker.post(path, content=body, headers={"Content-Type": kind})
    assert answer.status_code in (400, 413, 415, 422, 431), answer.text
    assert answer.json()["error"]["message"]
