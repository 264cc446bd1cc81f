"""A signature covers one adapter, and an upload is taken only with the signature of a trusted key."""

from __future__ import annotations

import base64
import io
import json
import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from rootstock.adapters.bundle import PlainFields, pack
from rootstock.adapters.bundle.archive import MANIFEST, SIGNATURE, WEIGHTS, Archive, open_archive
from rootstock.adapters.bundle.manifest import read_manifest
from rootstock.adapters.signing.signed_zip import signed_tail, signed_zip, with_signature
from rootstock.adapters.signing.signing_key import SigningKey, UnusableKey
from rootstock.adapters.signing.statement import Statement
from rootstock.adapters.signing.trusted_keys import TrustedKeys
from rootstock.adapters.spec import Rejected
from tests.adapters.signing_bundles import (
    LIMITS,
    bundle_files,
    folder_files,
    read_signature,
    signed,
    statement,
    trusted_text,
)
from tests.attacks.forge import with_json

# RFC 8032, section 7.1: secret key, public key, message and signature of TEST 1, TEST 2 and TEST 3.
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd"
        "25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c3"
        "87b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594"
        "a7c15e9716ed28dc027beceea1ec40a",
    ),
]


@pytest.fixture(scope="module")
def key() -> SigningKey:
    return SigningKey.generate()


@pytest.fixture(scope="module")
def other() -> SigningKey:
    return SigningKey.generate()


def opened(files: dict[str, bytes]) -> Archive:
    return open_archive(pack(files), LIMITS)


def refusal(trusted: TrustedKeys, files: dict[str, bytes], plain: PlainFields | None = None) -> str:
    """Return the message with which the keys refuse these files."""
    with pytest.raises(Rejected) as caught:
        trusted.check(opened(files), plain or PlainFields())
    assert caught.value.check == "signature"
    assert caught.value.where == SIGNATURE
    return caught.value.message


def with_field(files: dict[str, bytes], **fields: Any) -> dict[str, bytes]:
    """Return the files with other fields in the signature."""
    return {**files, SIGNATURE: json.dumps({**json.loads(files[SIGNATURE]), **fields}).encode()}


@pytest.mark.parametrize(("secret", "public", "message", "signature"), RFC_8032)
def test_a_key_file_gives_the_public_key_and_the_signatures_of_rfc_8032(
    secret: str, public: str, message: str, signature: str, tmp_path: Path
) -> None:
    seed = ed25519.Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret))
    SigningKey(seed).save(tmp_path / "rfc.pem")
    key = SigningKey.load(tmp_path / "rfc.pem")
    assert base64.b64decode(key.public) == bytes.fromhex(public)
    assert key.private.sign(bytes.fromhex(message)) == bytes.fromhex(signature)


def test_the_signed_bytes_are_the_domain_the_kind_and_the_digest(key: SigningKey) -> None:
    digest = f"sha256:{7:064x}"
    value = base64.b64decode(key.sign(Statement("bundle", digest)).value)
    public = key.private.public_key()
    public.verify(value, b"rootstock adapter signature v1\0bundle\0" + digest.encode())
    for message in (digest.encode(), bytes(32), b"rootstock adapter signature v1\0folder\0" + digest.encode()):
        with pytest.raises(InvalidSignature):
            public.verify(value, message)


def test_a_signature_changes_neither_a_member_nor_the_digest(key: SigningKey) -> None:
    files = bundle_files()
    data, signature = signed_zip(pack(files), key, PlainFields())
    archive = open_archive(data, LIMITS)
    assert dict(archive.members) == files
    assert archive.signature == signature.to_bytes()
    assert signature.statement == Statement("bundle", read_manifest(files[MANIFEST]).digest)


@pytest.mark.parametrize("folder", ["", "intents/"])
def test_a_signature_lies_beside_the_members_and_replaces_an_earlier_one(
    folder: str, key: SigningKey, other: SigningKey
) -> None:
    data = pack({folder + name: content for name, content in bundle_files().items()})
    once, _ = signed_zip(data, other, PlainFields())
    twice, signature = signed_zip(once, key, PlainFields())
    with zipfile.ZipFile(io.BytesIO(twice)) as archive:
        assert [name for name in archive.namelist() if name.endswith(SIGNATURE)] == [folder + SIGNATURE]
    assert open_archive(twice, LIMITS).signature == signature.to_bytes()


def test_a_stored_bundle_becomes_a_signed_one_by_a_new_end(key: SigningKey) -> None:
    data = pack(bundle_files())
    signature = key.sign(statement(bundle_files()))
    start, tail = signed_tail(io.BytesIO(data), signature)
    assert 0 < len(tail) < 4096 < start
    made = data[:start] + tail
    with zipfile.ZipFile(io.BytesIO(made)) as archive:
        assert archive.testzip() is None
    assert open_archive(made, LIMITS).signature == signature.to_bytes()
    assert dict(open_archive(made, LIMITS).members) == bundle_files()
    again = signed_tail(io.BytesIO(made), signature)
    assert again == (len(made), b"")


def test_the_name_of_the_trusted_key_is_recorded(key: SigningKey, other: SigningKey) -> None:
    trusted = TrustedKeys.parse(trusted_text(former=other, release=key))
    files = signed(bundle_files(), key)
    record = trusted.check(opened(files), PlainFields())
    assert record == {"signer": "release", **read_signature(files).to_json()}


def test_a_former_key_and_its_successor_are_trusted_together(key: SigningKey, other: SigningKey) -> None:
    trusted = TrustedKeys.parse(trusted_text(former=other, release=key))
    signers = [trusted.check(opened(signed(bundle_files(), k)), PlainFields()) for k in (other, key)]
    assert [record and record["signer"] for record in signers] == ["former", "release"]


def test_without_trusted_keys_an_upload_needs_no_signature_and_a_right_one_has_no_name(key: SigningKey) -> None:
    trusted = TrustedKeys()
    assert trusted.check(opened(bundle_files()), PlainFields()) is None
    record = trusted.check(opened(signed(bundle_files(), key)), PlainFields())
    assert record is not None
    assert record["signer"] is None


def test_an_unsigned_upload_is_refused_with_the_remedy(key: SigningKey) -> None:
    message = refusal(TrustedKeys.parse(trusted_text(release=key)), bundle_files())
    assert "has no signature" in message
    assert "rootstock adapters sign PATH --key FILE" in message


def test_an_unknown_key_is_refused_and_named(key: SigningKey, other: SigningKey) -> None:
    message = refusal(TrustedKeys.parse(trusted_text(release=key)), signed(bundle_files(), other))
    assert other.public in message
    assert "ROOTSTOCK_TRUSTED_KEYS" in message


def _another_bundle(files: dict[str, bytes], key: SigningKey) -> dict[str, bytes]:
    return {**files, SIGNATURE: signed(bundle_files(license="MIT"), key)[SIGNATURE]}


def _another_manifest(files: dict[str, bytes], key: SigningKey) -> dict[str, bytes]:
    return with_json(files, MANIFEST, license="MIT")


def _digest_swapped(files: dict[str, bytes], key: SigningKey) -> dict[str, bytes]:
    changed = with_json(files, MANIFEST, license="MIT")
    return with_field(changed, digest=read_manifest(changed[MANIFEST]).digest)


def _kind_swapped(files: dict[str, bytes], key: SigningKey) -> dict[str, bytes]:
    return with_field(files, of="folder")


def _signed_bare(files: dict[str, bytes], key: SigningKey) -> dict[str, bytes]:
    digest = read_signature(files).statement.digest
    return with_field(files, signature=base64.b64encode(key.private.sign(digest.encode())).decode())


def _one_bit(files: dict[str, bytes], key: SigningKey) -> dict[str, bytes]:
    value = bytearray(base64.b64decode(read_signature(files).value))
    value[0] ^= 1
    return with_field(files, signature=base64.b64encode(value).decode())


def _zeros(files: dict[str, bytes], key: SigningKey) -> dict[str, bytes]:
    return with_field(files, signature=base64.b64encode(bytes(64)).decode())


def _larger_scalar(files: dict[str, bytes], key: SigningKey) -> dict[str, bytes]:
    # S plus the group's order is another text of the same signature; RFC 8032, section 5.1.7, refuses it.
    order = 2**252 + 27742317777372353535851937790883648493
    value = base64.b64decode(read_signature(files).value)
    scalar = int.from_bytes(value[32:], "little") + order
    return with_field(files, signature=base64.b64encode(value[:32] + scalar.to_bytes(32, "little")).decode())


Attack = Callable[[dict[str, bytes], SigningKey], dict[str, bytes]]


@pytest.mark.parametrize("is_trusted", [True, False])
@pytest.mark.parametrize(
    "attack",
    [
        _another_bundle, _another_manifest, _digest_swapped, _kind_swapped, _signed_bare, _one_bit, _zeros,
        _larger_scalar,
    ],
)  # fmt: skip
def test_a_signature_that_is_not_of_this_bundle_is_refused(
    attack: Attack, is_trusted: bool, key: SigningKey
) -> None:
    trusted = TrustedKeys.parse(trusted_text(release=key)) if is_trusted else TrustedKeys()
    files = signed(bundle_files(), key)
    assert trusted.check(opened(files), PlainFields())
    message = refusal(trusted, attack(files, key))
    assert "rootstock adapters sign" in message


def test_a_trusted_key_in_the_place_of_the_signer_s_is_refused(key: SigningKey, other: SigningKey) -> None:
    files = with_field(signed(bundle_files(), other), key=key.public)
    message = refusal(TrustedKeys.parse(trusted_text(release=key)), files)
    assert "did not make this signature" in message


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("key", ""), ("key", None), ("key", 7), ("key", ["a"]), ("key", "A" * 44), ("key", "é" * 44),
        ("key", "x" * 3000), ("signature", ""), ("signature", "not base64!"), ("signature", "A" * 87),
        ("signature", " " + "A" * 86 + "=="), ("signature", "A" * 85 + "B=="), ("signature", None),
        ("schema", 2), ("schema", True), ("schema", "1"), ("algorithm", "rsa"), ("algorithm", None),
        ("of", "server"), ("of", None), ("of", []), ("digest", None), ("digest", 5), ("more", 1),
    ],
)  # fmt: skip
def test_a_malformed_signature_is_refused(field: str, value: Any, key: SigningKey) -> None:
    files = with_field(signed(bundle_files(), key), **{field: value})
    for trusted in (TrustedKeys(), TrustedKeys.parse(trusted_text(release=key))):
        assert refusal(trusted, files)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\x80\x04K\x07.",
        b"{" * 3000,
        b'{"schema":1,"schema":1}',
        b" " * 4097,
        b"\xff",
    ],
)  # fmt: skip
def test_a_file_that_is_no_signature_is_refused(content: bytes, key: SigningKey) -> None:
    files = {**bundle_files(), SIGNATURE: content}
    assert refusal(TrustedKeys.parse(trusted_text(release=key)), files)


def test_a_manifest_covers_the_other_members_and_the_signature_covers_the_manifest(key: SigningKey) -> None:
    from rootstock.adapters.bundle import open_bundle

    files = signed(bundle_files(), key)
    tampered = {**files, WEIGHTS: files[WEIGHTS][:-1] + b"\x7f"}
    assert TrustedKeys.parse(trusted_text(release=key)).check(opened(tampered), PlainFields())
    spec: Any = None
    with pytest.raises(Rejected, match=f"names: {WEIGHTS}: has the digest"):
        open_bundle(pack(tampered), LIMITS, spec)


def test_a_plain_folder_is_signed_with_its_form_fields(key: SigningKey) -> None:
    trusted = TrustedKeys.parse(trusted_text(release=key))
    plain = PlainFields(labels=("no", "perhaps", "yes"), max_length=64)
    files = signed(folder_files(), key, plain)
    record = trusted.check(opened(files), plain)
    assert record is not None
    assert (record["of"], record["signer"]) == ("folder", "release")
    for fields in (PlainFields(), PlainFields(labels=("yes", "perhaps", "no"), max_length=64)):
        assert "and the upload is the folder" in refusal(trusted, files, fields)


@pytest.mark.parametrize("name", [WEIGHTS, "README.md", "config.json", "chat_template.jinja"])
def test_a_plain_folder_s_signature_covers_each_file_that_the_server_reads(name: str, key: SigningKey) -> None:
    trusted = TrustedKeys.parse(trusted_text(release=key))
    files = signed(folder_files(), key)
    assert trusted.check(opened({**files, "training_args.bin": b"left out"}), PlainFields())
    refusal(trusted, {**files, name: b"other"})


def test_the_keys_may_be_in_a_file_with_comments(tmp_path: Path, key: SigningKey, other: SigningKey) -> None:
    path = tmp_path / "trusted-keys"
    path.write_text(f"# the team's keys\n\n former = {other.public}\nrelease={key.public}\n")
    for one in (key, other):
        assert TrustedKeys.parse(str(path)).check(opened(signed(bundle_files(), one)), PlainFields())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("release=AAAA", "the key of release is not 32 bytes"),
        ("release=" + "A" * 43, "the key of release is not 32 bytes"),
        ("release=" + "A" * 42 + "B=", "the key of release is not 32 bytes"),
        ("=" + "A" * 43 + "=", "'' is no name of a signer"),
        ("two words=" + "A" * 43 + "=", "'two words' is no name"),
        ("a=" + "A" * 43 + "=,a=" + "B" * 42 + "A=", "a has a name or a key that occurs twice"),
        ("a=" + "A" * 43 + "=,b=" + "A" * 43 + "=", "b has a name or a key that occurs twice"),
        ("/no/such/file", "the file /no/such/file cannot be read"),
    ],
)
def test_a_wrong_list_of_keys_is_refused_with_its_fault(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TrustedKeys.parse(text)


def test_an_empty_file_of_keys_does_not_trust_everyone(tmp_path: Path) -> None:
    path = tmp_path / "trusted-keys"
    path.write_text("# none yet\n")
    with pytest.raises(ValueError, match="names no key"):
        TrustedKeys.parse(str(path))


def test_a_new_key_file_is_for_its_owner_alone_and_is_never_overwritten(tmp_path: Path, key: SigningKey) -> None:
    path = tmp_path / "release.pem"
    before = os.umask(0)
    try:
        key.save(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    content = path.read_bytes()
    with pytest.raises(UnusableKey, match="never overwritten"):
        SigningKey.generate().save(path)
    assert path.read_bytes() == content
    assert SigningKey.load(path).public == key.public


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_can_reach_is_refused(mode: int, tmp_path: Path, key: SigningKey) -> None:
    path = tmp_path / "release.pem"
    key.save(path)
    path.chmod(mode)
    with pytest.raises(UnusableKey, match=f"chmod 600 {path}"):
        SigningKey.load(path)


def test_another_kind_of_key_is_refused(tmp_path: Path, key: SigningKey) -> None:
    made = rsa.generate_private_key(65537, 1024)
    form = (Encoding.PEM, PrivateFormat.PKCS8)
    for i, content in enumerate(
        (
            made.private_bytes(*form, NoEncryption()),
            key.private.private_bytes(*form, BestAvailableEncryption(b"secret")),
            b"",
            b"\x80\x04K\x07.",
        )
    ):
        path = tmp_path / f"{i}.pem"
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(UnusableKey, match="no ed25519 private key"):
            SigningKey.load(path)
    with pytest.raises(UnusableKey, match="cannot be read"):
        SigningKey.load(tmp_path / "none.pem")


def test_a_signature_of_the_first_zip_stays_right_in_a_zip_of_another_tool(key: SigningKey) -> None:
    data, signature = signed_zip(pack(bundle_files()), key, PlainFields())
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as before, zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as after:
        for name in reversed(before.namelist()):
            after.writestr(f"folder/{name}", before.read(name))
    signature.check(statement(dict(open_archive(out.getvalue(), LIMITS).members)))
    assert with_signature(out.getvalue(), signature)
