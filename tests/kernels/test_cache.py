"""Files of the user's cache folder: what is whole is read, what is not is made again, what cannot be used is left."""

import os
import random
import shutil
import time

import platformdirs
import pytest

from kernels.cache import CacheWarning, Folder
from kernels.private_files import UnusableError, opened, script

FOLDER = Folder("kept", limit_nbytes=4000)
KEY, CONTENT = "a kernel", bytes(range(256)) * 3


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda *_, **__: str(tmp_path))
    return tmp_path


@pytest.fixture
def kept():
    """The one file there is."""
    FOLDER.write(KEY, CONTENT)
    [path] = FOLDER.path.iterdir()
    return path


def test_what_was_written_is_read(kept):
    assert FOLDER.read(KEY) == CONTENT
    assert FOLDER.read("another kernel") is None
    assert [kept.stat().st_mode & 0o777, FOLDER.path.stat().st_mode & 0o777] == [0o600, 0o700]
    FOLDER.write(KEY, b"")
    assert FOLDER.read(KEY) == b""


def damage(kind, path, rng):
    """Does one kind of thing to a file that may happen to it."""
    data = bytearray(path.read_bytes())
    at = rng.randrange(len(data))
    if kind == "bit":
        data[at] ^= 1 << rng.randrange(8)
    elif kind == "shorter":
        del data[at:]
    elif kind == "longer":
        data += rng.randbytes(1 + at)
    elif kind == "zeros":
        data[at:] = bytes(len(data) - at)
    elif kind == "other":
        data = bytearray(rng.randbytes(at))
    elif kind == "twice":
        data[at:at] = data[at : at + 9] or b"\0"
    path.write_bytes(data)


@pytest.mark.parametrize("kind", ["bit", "shorter", "longer", "zeros", "other", "twice"])
@pytest.mark.filterwarnings("ignore::kernels.cache.CacheWarning")
def test_chance_damage_is_never_read(kept, kind):
    rng, whole = random.Random(0), kept.read_bytes()
    for _ in range(60):
        damage(kind, kept, rng)
        assert FOLDER.read(KEY) == (CONTENT if kept.read_bytes() == whole else None)
        kept.write_bytes(whole)
    assert FOLDER.read(KEY) == CONTENT


def replace_with(what, path):
    path.unlink()
    if what == "fifo":
        os.mkfifo(path)
    elif what == "folder":
        (path / "deeper").mkdir(parents=True)
    elif what == "link":
        (path.parent.parent / "elsewhere").write_bytes(b"")
        path.symlink_to(path.parent.parent / "elsewhere")
    elif what == "endless":
        path.symlink_to("/dev/zero")
    elif what == "socket":
        os.mknod(path, 0o140600)
    elif what == "huge":
        with open(path, "wb") as file:
            file.truncate(1 << 40)


@pytest.mark.parametrize("what", ["fifo", "folder", "link", "endless", "socket", "huge"])
def test_what_stands_in_the_place_of_a_file_is_replaced(kept, what):
    replace_with(what, kept)
    with pytest.warns(CacheWarning, match=f"{kept}.*, and is made again"):
        assert FOLDER.read(KEY) is None
    FOLDER.write(KEY, CONTENT)
    assert FOLDER.read(KEY) == CONTENT
    assert kept.is_file()
    assert not kept.is_symlink()


def test_a_file_of_another_key_is_not_taken(kept):
    FOLDER.write("another kernel", b"another program")
    [other] = set(FOLDER.path.iterdir()) - {kept}
    shutil.copy(other, kept)
    with pytest.warns(CacheWarning, match="is damaged, and is made again"):
        assert FOLDER.read(KEY) is None


def test_one_warning_is_enough(kept):
    FOLDER.write("another kernel", CONTENT)
    for path in FOLDER.path.iterdir():
        path.write_bytes(b"")
    with pytest.warns(CacheWarning) as told:
        assert [FOLDER.read(key) for key in (KEY, "another kernel", KEY)] == [None] * 3
    assert len(told) == 1


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o777, 0o701])
def test_a_folder_that_others_get_into_is_not_used(kept, mode):
    FOLDER.path.chmod(mode)
    with pytest.warns(CacheWarning, match=rf"{FOLDER.path} is not used: its mode {mode:o} .*chmod 700"):
        assert FOLDER.read(KEY) is None
    FOLDER.write("more", CONTENT)
    assert list(FOLDER.path.iterdir()) == [kept]
    assert FOLDER.path.stat().st_mode & 0o777 == mode
    assert "chmod 700" in FOLDER.state().problem


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_belongs_to_another_user_is_not_used(kept):
    os.chown(kept, 12345, -1)
    with pytest.warns(CacheWarning, match="is no file that this program wrote"):
        assert FOLDER.read(KEY) is None
    FOLDER.write(KEY, CONTENT)
    assert FOLDER.read(KEY) == CONTENT
    os.chown(FOLDER.path, 12345, -1)
    assert FOLDER.read(KEY) is None
    with pytest.raises(UnusableError, match="belongs to user 12345"), opened(FOLDER.path):
        pass


def test_a_link_to_a_folder_is_not_followed(kept, home):
    FOLDER.path.rename(home / "elsewhere")
    FOLDER.path.symlink_to(home / "elsewhere")
    with pytest.warns(CacheWarning, match="no folder"):
        assert FOLDER.read(KEY) is None


def test_a_file_in_the_place_of_the_cache_folder(home, monkeypatch):
    (home / "file").write_text("")
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda *_, **__: str(home / "file"))
    with pytest.warns(CacheWarning, match="no folder.* set XDG_CACHE_HOME"):
        FOLDER.write(KEY, CONTENT)
    assert FOLDER.read(KEY) is None
    assert (home / "file").read_text() == ""


def test_the_files_that_were_not_used_for_longest_go_first(home, monkeypatch):
    now = time.time()
    for i in range(8):
        FOLDER.write(str(i), CONTENT)
        path = max(FOLDER.path.iterdir(), key=lambda p: p.stat().st_mtime_ns)
        os.utime(path, (now, now - 10_000_000 + i))
    (FOLDER.path / ".writing-1").write_bytes(b"x" * 9)
    os.utime(FOLDER.path / ".writing-1", (now, now - 9_000_000))
    assert FOLDER.read("0") == CONTENT  # it is in use from now on
    (moved := home / "moved").mkdir(0o700)
    FOLDER.path.rename(moved / "kept")
    # a folder that this process has not written to yet
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda *_, **__: str(moved))
    FOLDER.write("new", CONTENT)
    there = [key for key in (*map(str, range(8)), "new") if FOLDER.read(key)]
    assert there == ["0", "7", "new"]
    assert FOLDER.state().files == 3
    assert FOLDER.state().nbytes < 3000


def test_a_script_is_written_again_where_it_was_changed(home):
    path = home / "private" / "cc"
    script(path, "#!/bin/sh\nexit 0\n")
    assert os.access(path, os.X_OK)
    path.write_text("#!/bin/sh\nexit 1\n")
    script(path, "#!/bin/sh\nexit 0\n")
    assert path.read_text().endswith("exit 0\n")
    path.parent.chmod(0o755)
    with pytest.raises(UnusableError, match="lets others in"):
        script(path, "")
