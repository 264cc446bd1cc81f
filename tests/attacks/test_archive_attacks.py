"""Uploads that attack through the zip: each is refused by its check, naming the member, in bounded memory."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable

import pytest

from rootstock.adapters.bundle import Bundle, Limits, open_bundle, pack
from rootstock.adapters.bundle.archive import CARD, CONFIG, GOLDEN, MANIFEST, MEMBERS, WEIGHTS
from rootstock.adapters.spec import FoundationSpec, Rejected
from tests.attacks.forge import LIMITS, at_most, good_files, good_tensors, plain_files, refused


def zip_of(*members: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return out.getvalue()


def good_members() -> list[tuple[str | zipfile.ZipInfo, bytes]]:
    return list(plain_files().items())


def directory_entry(data: bytes, member: str) -> int:
    """Where a member's entry in the zip's directory begins."""
    return data.rindex(b"PK\x01\x02", 0, data.rindex(member.encode()))


def patched(data: bytes, at: int, form: str, value: int) -> bytes:
    return data[:at] + struct.pack(form, value) + data[at + struct.calcsize(form) :]


def with_sizes(data: bytes, member: str, size: int, crc: int) -> bytes:
    """The zip whose two headers declare another unpacked size (and CRC) for a member."""
    entry = directory_entry(data, member)
    local = struct.unpack_from("<L", data, entry + 42)[0]
    data = patched(patched(data, entry + 24, "<L", size), local + 22, "<L", size)
    return patched(patched(data, entry + 16, "<L", crc), local + 14, "<L", crc)


def test_the_good_bundle_and_the_good_plain_folder_are_accepted(tiny: FoundationSpec) -> None:
    for files in (good_files(tiny), plain_files()):
        adapter = open_bundle(pack(files), LIMITS, tiny).adapter(tiny, LIMITS.max_rank)
        assert len(adapter.weights.sites) == 6


@pytest.mark.parametrize(
    "data", [b"", b"PK", b"not a zip" * 100, b"\x80\x04\x95pickle", b"PK\x05\x06" + bytes(9)]
)
def test_bytes_that_are_no_zip_are_refused(tiny: FoundationSpec, data: bytes) -> None:
    refused(data, tiny, "members", "bundle", "not a zip archive")


def test_an_empty_zip_is_refused_naming_what_is_missing(tiny: FoundationSpec) -> None:
    refused(zip_of(), tiny, "members", CONFIG, "missing", "nothing")


@pytest.mark.parametrize("missing", [CONFIG, WEIGHTS])
def test_a_zip_without_a_required_member_is_refused(tiny: FoundationSpec, missing: str) -> None:
    files = good_files(tiny)
    del files[missing]
    refused(files, tiny, "members", missing, "missing", MANIFEST)


@pytest.mark.parametrize("keep", [1, 10, 100, 2000, -1, -10, -200])
def test_a_truncated_zip_is_refused(tiny: FoundationSpec, keep: int) -> None:
    refused(pack(good_files(tiny))[:keep], tiny, "members", "bundle")


@pytest.mark.parametrize(
    "name",
    [
        "../adapter_config.json", "a/../../adapter_config.json", "..", "a/..", "/etc/passwd",
        "/adapter_config.json",
        "..\\adapter_config.json", "a\\adapter_config.json", "C:adapter_config.json", "C:/adapter_config.json",
        "\\\\host\\share", "a/b/adapter_config.json", "//adapter_config.json",
    ],
)  # fmt: skip
def test_a_member_that_leaves_the_folder_is_refused_by_name(tiny: FoundationSpec, name: str) -> None:
    refused(zip_of(*good_members(), (name, b"{}")), tiny, "members", name, "leaves the bundle's folder")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
def test_a_link_or_special_file_is_refused_by_name(tiny: FoundationSpec, kind: int) -> None:
    info = zipfile.ZipInfo(CARD)
    info.external_attr = (kind | 0o777) << 16
    refused(zip_of(*good_members(), (info, b"/etc/passwd")), tiny, "members", CARD, "a link or special file")


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
@pytest.mark.parametrize("second", [WEIGHTS, f"folder/{WEIGHTS}", f"{WEIGHTS}\x00hidden"])
def test_two_members_of_one_name_are_refused(tiny: FoundationSpec, second: str) -> None:
    refused(zip_of(*good_members(), (second, b"other")), tiny, "members", WEIGHTS, "twice")


def test_members_in_two_folders_are_refused(tiny: FoundationSpec) -> None:
    files = plain_files()
    data = zip_of((f"a/{CONFIG}", files[CONFIG]), (f"b/{WEIGHTS}", files[WEIGHTS]))
    refused(data, tiny, "members", "bundle", "2 folders")


@pytest.mark.parametrize(
    "name", ["setup.py", "adapter_model.bin", "pytorch_model.bin", "Adapter_config.json", "é.txt"]
)
def test_an_extra_member_is_refused_by_name_and_pickle_with_its_reason(tiny: FoundationSpec, name: str) -> None:
    reason = "pickled weights are never read" if name.endswith(".bin") else "unknown"
    refused(zip_of(*good_members(), (name, b"x")), tiny, "members", name, reason, *MEMBERS)


def test_pickled_weights_in_place_of_safetensors_are_refused_and_never_run(tiny: FoundationSpec) -> None:
    data = zip_of((CONFIG, plain_files()[CONFIG]), ("adapter_model.bin", b"cos\nabort\n(tR."))
    refused(data, tiny, "members", "adapter_model.bin", "pickled weights are never read")
    refused(plain_files(b"cos\nabort\n(tR."), tiny, "safetensors", WEIGHTS)


def test_a_nested_archive_is_an_unknown_member(tiny: FoundationSpec) -> None:
    refused(zip_of(("bundle.zip", pack(plain_files()))), tiny, "members", "bundle.zip", "unknown")


def test_eleven_members_are_refused_by_their_count(tiny: FoundationSpec) -> None:
    extra = [(f"{i}/", b"") for i in range(9)]
    refused(zip_of(*good_members(), *extra), tiny, "members", "bundle", "11 members", "at most 5")


def test_a_directory_of_a_hundred_thousand_members_is_refused_before_it_is_listed(tiny: FoundationSpec) -> None:
    entry = struct.pack("<4s6H3L5H2L", b"PK\x01\x02", 20, 20, 0, 0, 0, 33, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    count = 10**5
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 9, 9, len(entry) * count, 0, 0)
    data = entry * count + end
    limits = Limits()
    assert len(data) < limits.max_bundle_bytes
    with at_most(20), pytest.raises(ValueError, match=f"directory of members takes {len(entry) * count} bytes"):
        open_bundle(data, limits, tiny)


def test_a_directory_whose_entries_swallow_the_manifest_s_is_not_a_plain_folder(tiny: FoundationSpec) -> None:
    """One changed byte, an entry's comment length, hides what follows it: the golden set and the fingerprint."""
    data = pack(good_files(tiny))
    weights, manifest = directory_entry(data, WEIGHTS), directory_entry(data, MANIFEST)
    assert weights < manifest < directory_entry(data, GOLDEN)
    hidden = patched(data, weights + 32, "<H", len(data) - 22 - manifest)
    refused(hidden, tiny, "members", "bundle", "3 members are listed and the archive counts 5")


def test_more_bytes_than_the_limit_are_refused_with_both_numbers(tiny: FoundationSpec) -> None:
    data = bytes(LIMITS.max_bundle_bytes + 1)
    refused(data, tiny, "size", "bundle", len(data), LIMITS.max_bundle_bytes)


def test_a_bomb_is_refused_from_its_header_before_it_unpacks(tiny: FoundationSpec) -> None:
    files = plain_files(bytes(LIMITS.max_unpacked_bytes))
    data = pack(files)
    assert len(data) * 500 < LIMITS.max_unpacked_bytes
    refused(data, tiny, "size", "bundle", sum(map(len, files.values())), LIMITS.max_unpacked_bytes)


def test_a_text_member_over_its_limit_is_refused(tiny: FoundationSpec) -> None:
    size = LIMITS.max_text_bytes + 1
    refused({**plain_files(), CARD: bytes(size)}, tiny, "size", CARD, size, LIMITS.max_text_bytes)


@pytest.mark.parametrize("crc_of", [1000, 1001, 2**25])
def test_a_bomb_whose_header_declares_a_small_size_is_not_expanded(tiny: FoundationSpec, crc_of: int) -> None:
    """Its CRC is right for the declared beginning, for one byte more, or for everything."""
    data = with_sizes(pack(plain_files(bytes(2**25))), WEIGHTS, 1000, zlib.crc32(bytes(crc_of)))
    if crc_of == 1001:
        refused(data, tiny, "size", WEIGHTS, "more than 1000 bytes", "declares 1000")
    else:
        refused(data, tiny, "members", WEIGHTS, "Bad CRC-32")


def test_a_member_shorter_than_its_header_declares_is_refused_with_both_sizes(tiny: FoundationSpec) -> None:
    files = plain_files()
    size = len(files[CONFIG])
    data = with_sizes(pack(files), CONFIG, size + 7, zlib.crc32(files[CONFIG]))
    refused(data, tiny, "size", CONFIG, f"unpacks to {size} bytes", size + 7)


def test_two_entries_that_share_one_member_s_bytes_are_refused(tiny: FoundationSpec) -> None:
    data = pack({**plain_files(), CARD: plain_files()[CONFIG]})
    card, config = directory_entry(data, CARD), directory_entry(data, CONFIG)
    shared = patched(data, card + 42, "<L", struct.unpack_from("<L", data, config + 42)[0])
    refused(shared, tiny, "members", CARD, "cannot be read")


ENTRY64 = ("unpacked size", "packed size", "offset of the header")
END64 = ("members on this disk", "members", "directory's size", "directory's offset")
LOCATOR64 = "offset of the directory's end"
# The stream says where it ends, and the directory's end lies before its locator.
UNREAD64 = ("packed size", "members on this disk", LOCATOR64)


def zip64(**changed: int) -> bytes:
    """The good plain folder as a zip64, its first member's numbers and the directory's all of 64 bits."""
    data = zip_of(*good_members())
    at = data.index(b"PK\x01\x02")
    count, size = struct.unpack_from("<HL", data, data.rindex(b"PK\x05\x06") + 10)
    directory = data[at : at + size]
    name = struct.unpack_from("<H", directory, 28)[0]
    packed, unpacked = struct.unpack_from("<2L", directory, 20)
    numbers = (unpacked, packed, struct.unpack_from("<L", directory, 42)[0])
    entry = [changed.get(key, number) for key, number in zip(ENTRY64, numbers, strict=True)]
    first = directory[:20] + struct.pack("<2L", 2**32 - 1, 2**32 - 1) + directory[28:30] + struct.pack("<H", 28)
    first += directory[32:42] + struct.pack("<L", 2**32 - 1) + directory[46 : 46 + name]
    directory = first + struct.pack("<2H3Q", 1, 24, *entry) + directory[46 + name :]
    end = [changed.get(k, n) for k, n in zip(END64, (count, count, len(directory), at), strict=True)]
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, *end)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, changed.get(LOCATOR64, at + len(directory)), 1)
    full = (2**16 - 1, 2**16 - 1, 2**32 - 1, 2**32 - 1)
    last = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, *full, 0)
    return data[:at] + directory + record + locator + last


@pytest.mark.parametrize("number", [2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1])
@pytest.mark.parametrize("field", [*ENTRY64, *END64, LOCATOR64])
def test_a_number_of_64_bits_that_leads_nowhere_is_refused_or_not_read(
    tiny: FoundationSpec, field: str, number: int
) -> None:
    right = open_bundle(zip64(), LIMITS, tiny).digest
    assert right == open_bundle(pack(plain_files()), LIMITS, tiny).digest
    refused: str | None = None
    with at_most(24):
        try:
            digest = open_bundle(zip64(**{field: number}), LIMITS, tiny).digest
        except Rejected as error:
            refused = error.check
    if refused is None:
        assert (field in UNREAD64, digest) == (True, right)
    else:
        assert refused in ("members", "size")


def test_an_encrypted_member_is_refused_by_name(tiny: FoundationSpec) -> None:
    data = pack(plain_files())
    refused(
        patched(data, directory_entry(data, CONFIG) + 8, "<H", 1),
        tiny,
        "members",
        CONFIG,
        "encrypted; upload it unencrypted",
    )


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compression_that_allocates_what_it_likes_is_refused_by_name(tiny: FoundationSpec, method: int) -> None:
    refused(zip_of(*good_members(), method=method), tiny, "members", CONFIG, f"compression method {method}")


def test_names_that_are_not_utf_8_are_refused(tiny: FoundationSpec) -> None:
    data = zip_of(*good_members(), ("caf\u00e9.md", b"x"))
    refused(data.replace("café".encode(), b"caf\xff\xfe"), tiny, "members", "bundle", "not a zip archive")


@pytest.mark.parametrize("member", [CONFIG, WEIGHTS, GOLDEN, CARD])
def test_a_member_that_is_not_the_one_its_hash_names_is_refused_with_both_hashes(
    tiny: FoundationSpec, member: str
) -> None:
    files = good_files(tiny)
    other = files | {member: files[member].replace(b"a", b"b")}
    error = refused(other, tiny, "names", member)
    assert error.message.count("sha256:") == 2


@pytest.mark.parametrize("change", [lambda f: f.pop(GOLDEN), lambda f: f.update({CARD: b"# hello"})])
def test_members_and_hashes_that_do_not_match_one_to_one_are_refused(
    tiny: FoundationSpec, change: Callable[[dict[str, bytes]], object]
) -> None:
    files = good_files(tiny)
    change(files)
    refused(files, tiny, "names", "")
    refused({**plain_files(), MANIFEST: good_files(tiny)[MANIFEST]}, tiny, "names", CARD, "do not agree")


def test_a_refused_upload_leaves_nothing_that_the_next_one_meets(tiny: FoundationSpec) -> None:
    bundle: Bundle = open_bundle(pack(good_files(tiny)), LIMITS, tiny)
    refused(pack(plain_files(good_tensors(rank=5))), tiny, "sites", QUERY_A)
    assert open_bundle(pack(good_files(tiny)), LIMITS, tiny).digest == bundle.digest


QUERY_A = "encoder.layer.0.attention.self.query.lora_A.weight"
