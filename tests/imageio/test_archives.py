"""Zips that are unpacked temporarily, or refused."""

import stat
import struct
import zipfile
import zlib

import numpy as np
import pytest

from liverseg.errors import LiversegError, OutputError, UnreadableError
from liverseg.imageio import archives as zips
from liverseg.imageio.archives import extracted


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Folder in which zips are unpacked, and which must be empty at the end."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


def zipped(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def test_a_folder_stays_where_it_is(tmp_path, temporary):
    with extracted(tmp_path) as folder:
        assert folder == tmp_path


def test_a_zip_is_a_folder_for_a_while(tmp_path, temporary):
    path = zipped(tmp_path / "Study.ZIP", [("a/", ""), ("a/1", b"one"), ("b\\2", b"two"), ("b\\", b"")])
    with extracted(path) as folder:
        assert folder.parent == temporary
        files = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        assert files == {"a/1": b"one", "b/2": b"two"}
    assert path.exists()


def test_an_error_inside_is_not_the_zips(tmp_path, temporary):
    with pytest.raises(RuntimeError, match="mine"), extracted(zipped(tmp_path / "a.zip", [("1", b"one")])):
        raise RuntimeError("mine")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/etc/passwd", "absolute path"),
        ("\\\\server\\share", "absolute path"),
        ("C:\\a", "absolute path"),
        ("c:a", "absolute path"),
        ("a/../../b", "path that leads upwards"),
        ("..\\b", "path that leads upwards"),
    ],
)
def test_members_that_lead_elsewhere(name, message, tmp_path, temporary):
    path = zipped(tmp_path / "a.zip", [("fine", b"1"), (name, b"2")])
    with (
        pytest.raises(LiversegError, match=rf"a\.zip: member .* {message}; pack plain files") as caught,
        extracted(path),
    ):
        pass
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a" * 256, "member a{80}... has too long or too deep a path"),
        ("/".join("ab" for _ in range(33)), "has too long or too deep a path"),
        ("/".join("a" * 100 for _ in range(12)), "has too long or too deep a path"),
        ("ä" * 200, "has too long or too deep a path"),  # 400 bytes
        ("a\nliverseg: done", r"member a\\nliverseg: done has control characters in its name"),
        ("\x1b[2J", "has control characters in its name"),
    ],
)
def test_names_no_export_has(name, message, tmp_path, temporary):
    path = zipped(tmp_path / "a.zip", [("fine", b"1"), (name, b"2")])
    with pytest.raises(UnreadableError, match=message) as caught, extracted(path):
        pass
    assert "\n" not in str(caught.value)


def test_a_name_ends_at_a_nul(tmp_path, temporary):
    path = zipped(tmp_path / "a.zip", [("a.dcm_/../../b", b"1")])
    path.write_bytes(path.read_bytes().replace(b"a.dcm_/", b"a.dcm\0/"))
    with extracted(path) as folder:
        assert [file.name for file in folder.iterdir()] == ["a.dcm"]


def test_names_that_differ_in_case_are_two_files(tmp_path, temporary):
    with extracted(zipped(tmp_path / "a.zip", [("a/IM1", b"one"), ("A/im1", b"other")])) as folder:
        assert sorted(file.read_bytes() for file in folder.rglob("*") if file.is_file()) == [b"one", b"other"]


def overlapping(path, members, size):
    """Write a zip as Fifield's: each member starts with the next header as quoted text, and all end in one kernel."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    body, content = packer.compress(bytes(size)) + packer.flush(), bytes(size)
    heads = []
    for number in reversed(range(members)):
        name = b"%05d" % number
        if heads:  # a stored block with the next header, then the next member
            quoted = heads[-1][1]
            body = b"\0" + struct.pack("<HH", len(quoted), len(quoted) ^ 0xFFFF) + quoted + body
            content = quoted + content
        fields = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 33, zlib.crc32(content), len(body), len(content), 5, 0)
        heads.append((fields, b"PK\3\4" + fields + name, len(body)))
    kernel = heads[-1][1] + body
    listed = b""
    for number, (fields, head, packed) in enumerate(reversed(heads)):
        place = len(kernel) - packed - len(head)
        listed += b"PK\1\2" + struct.pack("<H", 20) + fields + bytes(10) + struct.pack("<I", place) + b"%05d" % number
    end = struct.pack("<HHHHIIH", 0, 0, members, members, len(listed), len(kernel), 0)
    path.write_bytes(kernel + listed + b"PK\5\6" + end)
    return path


def test_members_that_share_their_bytes_count_each_for_itself(tmp_path, temporary):
    few = overlapping(tmp_path / "few.zip", 3, 1000)
    assert few.stat().st_size < 400
    try:
        with extracted(few) as folder:  # valid according to older versions of Python
            assert [len(file.read_bytes()) for file in sorted(folder.iterdir())] == [1070, 1035, 1000]
    except UnreadableError as error:
        assert "possible zip bomb" in str(error)  # newer versions refuse it
    bomb = overlapping(tmp_path / "bomb.zip", 400, 1 << 20)  # 400 MiB
    assert bomb.stat().st_size < 60_000
    with pytest.raises(UnreadableError, match=r"bomb\.zip: holds more than 8 GiB, or than 100 times"), extracted(bomb):
        pass


def test_a_list_of_members_that_is_too_long_is_not_read(tmp_path, temporary):
    path = tmp_path / "claimed.zip"  # a list of a gigabyte, in a sparse file
    with path.open("wb") as file:
        file.seek(1 << 30)
        file.write(b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 9, 9, 1 << 30, 0, 0))
    with pytest.raises(UnreadableError, match=r"1024 MiB of names, 8 are allowed; unpack it"), extracted(path):
        pass


def test_many_folders(tmp_path, temporary, monkeypatch):
    path = zipped(tmp_path / "a.zip", [("/".join(f"{number}" for _ in range(30)) + "/a", b"") for number in range(2)])
    monkeypatch.setattr(zips, "MAX_FILES", 50)
    with pytest.raises(UnreadableError, match="more than 50 folders in it"), extracted(path):
        pass


def test_lack_of_space_is_reported_before_the_disk_is_full(tmp_path, temporary, monkeypatch):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("1", b"one")
        archive.filelist[0].file_size = 1 << 60  # the list of members then has it
    for limit in ("MAX_BYTES", "SMALL_BYTES"):
        monkeypatch.setattr(zips, limit, 1 << 61)
    match = r"cannot be unpacked into .* \(1099511627777 MiB are needed, \d+ are free\); is it full\? TMPDIR"
    with pytest.raises(OutputError, match=match), extracted(tmp_path / "a.zip"):
        pass


def test_links_are_refused(tmp_path, temporary):
    link = zipfile.ZipInfo("link")
    link.create_system = 3
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    path = zipped(tmp_path / "a.zip", [(link, "/etc/passwd"), ("link/b", b"2")])
    with pytest.raises(LiversegError, match="member link is a link or a device"), extracted(path):
        pass


def test_encrypted_members_are_refused(tmp_path, temporary):
    path = zipped(tmp_path / "a.zip", [("secret", b"1")])
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1  # the flag in the zip's directory
    path.write_bytes(content)
    with pytest.raises(LiversegError, match="member secret is encrypted"), extracted(path):
        pass


def test_limits(tmp_path, temporary, monkeypatch):
    path = zipped(tmp_path / "a.zip", [(str(number), bytes(5000)) for number in range(4)])
    monkeypatch.setattr(zips, "MAX_FILES", 3)
    with pytest.raises(LiversegError, match="4 members, 3 are allowed"), extracted(path):
        pass
    monkeypatch.setattr(zips, "MAX_FILES", 4)
    monkeypatch.setattr(zips, "MAX_BYTES", 19_999)
    with pytest.raises(LiversegError, match="holds more than"), extracted(path):
        pass
    monkeypatch.setattr(zips, "MAX_BYTES", 20_000)
    with extracted(path) as folder:
        assert len(list(folder.iterdir())) == 4
    monkeypatch.setattr(zips, "SMALL_BYTES", 1000)
    monkeypatch.setattr(zips, "MAX_RATIO", 20)
    with pytest.raises(LiversegError, match="20 times its compressed size"), extracted(path):
        pass


def test_sizes_a_zip_states_are_not_trusted(tmp_path, temporary):
    path = zipped(tmp_path / "a.zip", [("large", bytes(100_000))])
    content = path.read_bytes()
    stated = (100_000).to_bytes(4, "little")
    assert content.count(stated) == 2  # before the member and in the zip's directory
    path.write_bytes(content.replace(stated, (10).to_bytes(4, "little")))
    with pytest.raises(LiversegError, match="damaged or no zip"), extracted(path):
        pass


@pytest.mark.parametrize("damage", ["text", "cut", "flipped", "empty"])
def test_damaged_zips(damage, tmp_path, temporary):
    noise = np.random.default_rng(0).integers(0, 255, 3000).astype(np.uint8).tobytes()
    path = zipped(tmp_path / "a.zip", [("1", noise), ("2", noise)])
    content = bytearray(path.read_bytes())
    content[4000] ^= 255  # in the second member, when the first has been written
    path.write_bytes({"text": b"no zip", "cut": content[:3000], "flipped": content, "empty": b""}[damage])
    with pytest.raises(LiversegError, match=r"a\.zip: damaged or no zip .*; pack or copy it again"), extracted(path):
        pass


def test_one_name_twice(tmp_path, temporary):
    with pytest.warns(UserWarning, match="Duplicate"):
        path = zipped(tmp_path / "a.zip", [("1", b"one"), ("1", b"other")])
    with pytest.raises(LiversegError, match="two members are called 1"), extracted(path):
        pass
    path = zipped(tmp_path / "b.zip", [("1", b"one"), ("1/2", b"other")])
    with pytest.raises(LiversegError, match="cannot be unpacked into"), extracted(path):
        pass


def test_neither_folder_nor_zip(tmp_path, temporary):
    (tmp_path / "a.nii").touch()
    for name, message in (("none.zip", "no such folder or file"), ("a.nii", "neither a folder nor a .zip")):
        with pytest.raises(LiversegError, match=message), extracted(tmp_path / name):
            pass
