"""Zips that are unpacked for a while, or refused."""

import stat
import zipfile

import numpy as np
import pytest

from liverseg import zips
from liverseg.errors import LiversegError
from liverseg.zips import unpacked


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Where zips are unpacked; nothing may be left in it."""
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
    with unpacked(tmp_path) as folder:
        assert folder == tmp_path


def test_a_zip_is_a_folder_for_a_while(tmp_path, temporary):
    path = zipped(tmp_path / "Study.ZIP", [("a/", ""), ("a/1", b"one"), ("b\\2", b"two"), ("b\\", b"")])
    with unpacked(path) as folder:
        assert folder.parent == temporary
        files = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        assert files == {"a/1": b"one", "b/2": b"two"}
    assert path.exists()


def test_an_error_inside_is_not_the_zips(tmp_path, temporary):
    with pytest.raises(RuntimeError, match="mine"), unpacked(zipped(tmp_path / "a.zip", [("1", b"one")])):
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
    with pytest.raises(LiversegError, match=rf"a\.zip: member .* {message}; pack plain files") as told, unpacked(path):
        pass
    assert "\n" not in str(told.value)


def test_links_are_refused(tmp_path, temporary):
    link = zipfile.ZipInfo("link")
    link.create_system = 3
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    path = zipped(tmp_path / "a.zip", [(link, "/etc/passwd"), ("link/b", b"2")])
    with pytest.raises(LiversegError, match="member link is a link or a device"), unpacked(path):
        pass


def test_encrypted_members_are_refused(tmp_path, temporary):
    path = zipped(tmp_path / "a.zip", [("secret", b"1")])
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1  # the flag in the zip's directory
    path.write_bytes(content)
    with pytest.raises(LiversegError, match="member secret is encrypted"), unpacked(path):
        pass


def test_limits(tmp_path, temporary, monkeypatch):
    path = zipped(tmp_path / "a.zip", [(str(number), bytes(5000)) for number in range(4)])
    monkeypatch.setattr(zips, "MAX_FILES", 3)
    with pytest.raises(LiversegError, match="4 members, 3 are allowed"), unpacked(path):
        pass
    monkeypatch.setattr(zips, "MAX_FILES", 4)
    monkeypatch.setattr(zips, "MAX_BYTES", 19_999)
    with pytest.raises(LiversegError, match="holds more than"), unpacked(path):
        pass
    monkeypatch.setattr(zips, "MAX_BYTES", 20_000)
    with unpacked(path) as folder:
        assert len(list(folder.iterdir())) == 4
    monkeypatch.setattr(zips, "SMALL_BYTES", 1000)
    monkeypatch.setattr(zips, "MAX_RATIO", 20)
    with pytest.raises(LiversegError, match="20 times its packed size"), unpacked(path):
        pass


def test_sizes_a_zip_states_are_not_trusted(tmp_path, temporary):
    path = zipped(tmp_path / "a.zip", [("large", bytes(100_000))])
    content = path.read_bytes()
    stated = (100_000).to_bytes(4, "little")
    assert content.count(stated) == 2  # before the member and in the zip's directory
    path.write_bytes(content.replace(stated, (10).to_bytes(4, "little")))
    with pytest.raises(LiversegError, match="damaged or no zip"), unpacked(path):
        pass


@pytest.mark.parametrize("damage", ["text", "cut", "flipped", "empty"])
def test_damaged_zips(damage, tmp_path, temporary):
    noise = np.random.default_rng(0).integers(0, 255, 3000).astype(np.uint8).tobytes()
    path = zipped(tmp_path / "a.zip", [("1", noise), ("2", noise)])
    content = bytearray(path.read_bytes())
    content[4000] ^= 255  # in the second member, when the first has been written
    path.write_bytes({"text": b"no zip", "cut": content[:3000], "flipped": content, "empty": b""}[damage])
    with pytest.raises(LiversegError, match=r"a\.zip: damaged or no zip .*; pack or copy it again"), unpacked(path):
        pass


def test_one_name_twice(tmp_path, temporary):
    with pytest.warns(UserWarning, match="Duplicate"):
        path = zipped(tmp_path / "a.zip", [("1", b"one"), ("1", b"other")])
    with pytest.raises(LiversegError, match="two members are called 1"), unpacked(path):
        pass
    path = zipped(tmp_path / "b.zip", [("1", b"one"), ("1/2", b"other")])
    with pytest.raises(LiversegError, match="cannot be unpacked into"), unpacked(path):
        pass


def test_neither_folder_nor_zip(tmp_path, temporary):
    (tmp_path / "a.nii").touch()
    for name, message in (("none.zip", "no such folder or file"), ("a.nii", "neither a folder nor a .zip")):
        with pytest.raises(LiversegError, match=message), unpacked(tmp_path / name):
            pass
