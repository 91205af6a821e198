"""Files that nobody else can have written or read: real ones, with real owners and modes."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vllmray.errors import ConfigError
from vllmray.secure_files import PrivateFolder, read_secret, read_trusted

STRANGER = 54321
"""A user, and a group, that nobody here has."""
READERS = [read_trusted, read_secret]
Reader = Callable[[Path], str]

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="takes root, to give files to other users")


@pytest.fixture(autouse=True)
def nobody_called_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUDO_UID", raising=False)


@pytest.fixture
def open_umask() -> Iterator[None]:
    """A umask that takes nothing away."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("the text\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where a user's state would be: not there yet."""
    return tmp_path / "state" / "vllmray"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def refusal(act: Callable[[], object]) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        act()
    assert caught.value.exit_code == 2
    return caught.value


# What is a user's own: settings, keys.


@pytest.mark.parametrize("read", READERS)
def test_a_file_of_this_user_alone_is_read(read: Reader, file: Path) -> None:
    assert read(file) == "the text\n"
    file.chmod(0o400)
    assert read(file) == "the text\n"


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o644, 0o610, 0o601])
def test_what_others_may_read_is_trusted_and_is_no_secret(bits: int, file: Path) -> None:
    file.chmod(bits)
    assert read_trusted(file) == "the text\n"
    error = refusal(lambda: read_secret(file))
    assert "can be read by others" in error.message
    assert error.hint == f"Make it readable by you alone: chmod 600 {file}"
    assert "the text" not in f"{error.message}{error.hint}"


@pytest.mark.parametrize("read", READERS)
def test_what_anyone_can_write_is_refused(read: Reader, file: Path) -> None:
    file.chmod(0o602)
    error = refusal(lambda: read(file))
    assert "can be written by others" in error.message
    assert error.hint == f"Check its contents, then: chmod go-w {file}"


@as_root
@pytest.mark.parametrize("read", READERS)
def test_what_a_group_can_write_is_refused(read: Reader, file: Path) -> None:
    file.chmod(0o620)
    os.chown(file, 0, STRANGER)
    assert "can be written by others" in refusal(lambda: read(file)).message
    os.chown(file, 0, 1)  # a group of that number is on every system, and is not root's own
    assert "can be written by others" in refusal(lambda: read(file)).message


@as_root
def test_a_group_of_the_users_name_with_nobody_else_in_it_is_the_user(file: Path) -> None:
    file.chmod(0o660)
    os.chown(file, 0, 0)
    assert read_trusted(file) == "the text\n"
    assert "can be read by others" in refusal(lambda: read_secret(file)).message


@as_root
@pytest.mark.parametrize("read", READERS)
def test_what_is_another_users_is_refused_whatever_its_mode(read: Reader, file: Path) -> None:
    file.chmod(0o400)
    os.chown(file, STRANGER, 0)
    error = refusal(lambda: read(file))
    assert "belongs to another user" in error.message
    assert error.hint == f"Check its contents, then take ownership: chown 0 {file}"


@as_root
@pytest.mark.parametrize("read", READERS)
def test_root_by_sudo_takes_files_of_who_called_it(read: Reader, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.chown(file, STRANGER, STRANGER)
    monkeypatch.setenv("SUDO_UID", str(STRANGER))
    assert read(file) == "the text\n"
    for other in (str(STRANGER + 1), "", "-1", "root", f"{STRANGER}x"):
        monkeypatch.setenv("SUDO_UID", other)
        refusal(lambda: read(file))


def in_a_child(program: str, *argv: str, user: int | None = None) -> str:
    """What a program prints that has secure_files.py as `private`, started as that user."""
    source = Path(__file__).parents[2] / "src"
    start = (
        f"import os, sys; sys.path.insert(0, {str(source)!r}); sys.argv[1:] = {list(argv)!r}\n"
        "from pathlib import Path\n"
        "import vllmray.secure_files as private\n"
        "from vllmray.errors import ConfigError\n"
        + (f"os.setgroups([]); os.setgid({user}); os.setuid({user})\n" if user else "")
        + "\n"
    )
    done = subprocess.run([sys.executable, "-c", start + program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@as_root
def test_sudos_variable_means_nothing_to_a_user_who_is_not_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_UID", str(STRANGER + 1))
    program = "try: print(private.read_trusted(Path(sys.argv[1])))\nexcept ConfigError as error: print(error)"
    with tempfile.TemporaryDirectory() as name:  # pytest's own folder is closed to other users
        Path(name).chmod(0o755)
        file = Path(name) / "file"
        file.write_text("the text\n")
        file.chmod(0o644)
        said = []
        for owner in (STRANGER + 1, STRANGER, 0):
            os.chown(file, owner, 0)
            said.append(in_a_child(program, str(file), user=STRANGER).strip())
    assert said == [f"{file} belongs to another user", "the text", "the text"]


@pytest.mark.parametrize("read", READERS)
def test_a_users_own_path_may_lead_through_links_and_what_it_leads_to_counts(
    read: Reader, file: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(file)
    assert read(tmp_path / "link") == "the text\n"
    file.chmod(0o602)
    refusal(lambda: read(tmp_path / "link"))


@pytest.mark.timeout(20)
@pytest.mark.parametrize("read", READERS)
def test_a_pipe_is_no_file_and_is_not_waited_for(read: Reader, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert "is not a regular file" in refusal(lambda: read(tmp_path / "pipe")).message
    assert "is not a regular file" in refusal(lambda: read(Path("/dev/zero"))).message


def test_the_empty_device_is_a_file_without_settings_and_no_secret() -> None:
    assert read_trusted(Path("/dev/null")) == ""
    refusal(lambda: read_secret(Path("/dev/null")))


@pytest.mark.parametrize("read", READERS)
def test_what_can_not_be_read_is_pythons_own_error(read: Reader, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "missing")
    (tmp_path / "binary").write_bytes(b"\xff")
    (tmp_path / "binary").chmod(0o600)
    with pytest.raises(UnicodeDecodeError):
        read(tmp_path / "binary")


@pytest.mark.parametrize("read", READERS)
def test_a_folder_is_refused_and_nothing_of_it_stays_open(read: Reader, tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises((ConfigError, IsADirectoryError)) as caught:
        read(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# The state folder.


@pytest.mark.usefixtures("open_umask")
def test_what_is_put_there_is_for_this_user_alone_whatever_the_umask(root: Path) -> None:
    folder = PrivateFolder(root, "secrets", "lab")
    folder.write("token", "the text\n")
    assert folder.read("token") == "the text\n"
    assert folder.path == root / "secrets" / "lab"
    assert [mode(path) for path in (root, root / "secrets", folder.path)] == [0o700] * 3
    assert mode(folder.path / "token") == 0o600
    assert folder.write_first("other", "x") == "x"
    assert mode(folder.path / "other") == 0o600


def test_nothing_is_made_by_looking(root: Path) -> None:
    folder = PrivateFolder(root, "secrets", "lab")
    folder.check()
    assert folder.read("token") is None
    assert not root.parent.exists()
    folder.write("token", "x")
    assert folder.read("other") is None
    assert PrivateFolder(root, "secrets", "other").read("token") is None
    assert tree(root) == ["secrets", "secrets/lab", "secrets/lab/token"]


def test_a_file_is_replaced_whole_and_nothing_else_is_left(root: Path) -> None:
    folder = PrivateFolder(root, "secrets")
    folder.write("token", "first")
    before = (folder.path / "token").stat().st_ino
    folder.write("token", "second")
    assert folder.read("token") == "second"
    assert (folder.path / "token").stat().st_ino != before  # who reads the old one still has all of it
    assert tree(folder.path) == ["token"]


def test_a_write_that_fails_leaves_no_draft_and_what_was_there(root: Path) -> None:
    folder = PrivateFolder(root, "secrets")
    folder.write("token", "first")
    with pytest.raises(UnicodeEncodeError):
        folder.write("token", "\udcff")
    (folder.path / "taken").mkdir()
    with pytest.raises(IsADirectoryError):
        folder.write("taken", "second")
    assert tree(folder.path) == ["taken", "token"]
    assert folder.read("token") == "first"


def test_the_first_text_stays(root: Path) -> None:
    folder = PrivateFolder(root, "secrets")
    assert folder.write_first("token", "first") == "first"
    assert folder.write_first("token", "second") == "first"
    assert folder.read("token") == "first"
    assert tree(folder.path) == ["token"]


def test_of_two_who_write_first_at_once_both_have_the_same_text(root: Path) -> None:
    folder = PrivateFolder(root, "secrets", "lab")
    for case in range(20):
        got: dict[int, str] = {}
        line = threading.Barrier(4)

        def write(number: int, *, got: dict[int, str] = got, line: threading.Barrier = line, case: int = case) -> None:
            line.wait()
            got[number] = PrivateFolder(root, "secrets", "lab").write_first(f"token{case}", f"text of {number}")

        threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(got) == 4
        assert {*got.values()} == {folder.read(f"token{case}")}
    assert len(tree(folder.path)) == 20


@pytest.mark.parametrize("place", ["", "secrets", "secrets/lab"])
def test_a_link_in_a_folders_place_is_not_followed(place: str, root: Path, tmp_path: Path) -> None:
    PrivateFolder(root, "secrets", "lab").write("token", "mine")
    linked = root / place if place else root
    linked.rename(tmp_path / "moved")
    linked.symlink_to(tmp_path / "moved")
    folder = PrivateFolder(root, "secrets", "lab")
    before = tree(tmp_path / "moved")
    acts: list[Callable[[], object]] = [
        folder.check,
        lambda: folder.read("token"),
        lambda: folder.write("token", "new"),
        lambda: folder.write_first("new", "new"),
    ]
    for act in acts:
        error = refusal(act)
        assert error.message == f"{linked} is a symbolic link"
        assert error.hint == f"It must belong to you alone. Check it: ls -ld {linked}"
    assert tree(tmp_path / "moved") == before


def test_a_link_to_nothing_is_refused_too(root: Path, tmp_path: Path) -> None:
    root.parent.mkdir()
    root.symlink_to(tmp_path / "nowhere")
    folder = PrivateFolder(root, "secrets")
    refusal(folder.check)
    with pytest.raises((ConfigError, FileExistsError)):
        folder.write("token", "x")
    assert not (tmp_path / "nowhere").exists()


def test_a_linked_file_is_not_read_and_is_replaced_not_written_through(root: Path, file: Path) -> None:
    folder = PrivateFolder(root, "secrets")
    folder.write("other", "x")
    (folder.path / "token").symlink_to(file)
    assert refusal(lambda: folder.read("token")).message == f"{folder.path / 'token'} is a symbolic link"
    refusal(lambda: folder.write_first("token", "new"))
    assert file.read_text() == "the text\n"
    folder.write("token", "new")
    assert folder.read("token") == "new"
    assert file.read_text() == "the text\n"


@pytest.mark.timeout(20)
def test_what_is_no_file_there_is_refused_and_not_waited_for(root: Path) -> None:
    folder = PrivateFolder(root, "secrets")
    folder.write("other", "x")
    os.mkfifo(folder.path / "pipe", 0o600)
    (folder.path / "folder").mkdir(0o700)
    for name in ("pipe", "folder"):
        assert "is not a regular file" in refusal(lambda name=name: folder.read(name)).message  # type: ignore[misc]


def test_a_file_in_a_folders_place_is_refused(root: Path) -> None:
    PrivateFolder(root).write("secrets", "a file")
    folder = PrivateFolder(root, "secrets", "lab")
    for act in (folder.check, lambda: folder.read("token"), lambda: folder.write("token", "x")):
        assert str(root / "secrets") in refusal(act).message
    assert PrivateFolder(root).read("secrets") == "a file"


@pytest.mark.parametrize("place", ["", "secrets", "secrets/lab"])
def test_a_folder_that_others_can_write_is_refused(place: str, root: Path) -> None:
    folder = PrivateFolder(root, "secrets", "lab")
    folder.write("token", "x")
    (root / place).chmod(0o702)
    for act in (folder.check, lambda: folder.read("token"), lambda: folder.write("token", "y")):
        assert refusal(act).message == f"{root / place if place else root} can be written by others"
    (root / place).chmod(0o755)
    assert folder.read("token") == "x"


@as_root
@pytest.mark.parametrize("place", ["", "secrets", "secrets/lab", "secrets/lab/token"])
def test_what_is_another_users_there_is_refused(place: str, root: Path) -> None:
    folder = PrivateFolder(root, "secrets", "lab")
    folder.write("token", "x")
    os.chown(root / place, STRANGER, STRANGER)
    assert "belongs to another user" in refusal(lambda: folder.read("token")).message
    refusal(lambda: folder.write_first("token", "y"))


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o644])
def test_a_secret_that_others_can_read_is_lost_and_said_to_be(bits: int, root: Path) -> None:
    folder = PrivateFolder(root, "secrets")
    folder.write("token", "the text")
    (folder.path / "token").chmod(bits)
    error = refusal(lambda: folder.read("token"))
    assert "can be read by others" in error.message
    assert f"rm {folder.path / 'token'}" in str(error.hint)
    assert "the text" not in f"{error.message}{error.hint}"
    folder.write("token", "new")
    assert folder.read("token") == "new"


def test_no_descriptor_stays_open(root: Path, tmp_path: Path) -> None:
    folder = PrivateFolder(root, "secrets", "lab")
    folder.write("token", "x")
    (folder.path / "link").symlink_to(tmp_path)
    (folder.path / "folder").mkdir()
    before = len(list(Path("/proc/self/fd").iterdir()))
    folder.check()
    folder.read("token")
    folder.read("missing")
    folder.write("token", "y")
    folder.write_first("token", "z")
    refusal(lambda: folder.read("link"))
    with pytest.raises((ConfigError, OSError)):
        folder.read("folder")
    refusal(PrivateFolder(root, "secrets", "lab", "token").check)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


DUMPABLE = "import ctypes; print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"  # PR_GET_DUMPABLE, prctl(2)


def test_a_process_that_holds_secrets_leaves_no_core_and_its_children_are_as_any() -> None:
    program = (
        "import subprocess\n"
        f"{DUMPABLE}\n"
        "private.leave_no_core()\n"
        f"{DUMPABLE}\n"
        f"print(subprocess.run([sys.executable, '-c', {DUMPABLE!r}], capture_output=True, text=True).stdout)\n"
    )
    assert in_a_child(program).split() == ["1", "0", "1"]


@as_root
def test_other_processes_of_this_user_do_not_see_into_such_a_one() -> None:
    program = (
        "child = os.fork()\n"
        "if child == 0:\n"
        "    try:\n"
        "        open(f'/proc/{os.getppid()}/environ', 'rb').close(); print('seen')\n"
        "    except PermissionError:\n"
        "        print('not seen')\n"
        "    sys.stdout.flush(); os._exit(0)\n"
        "os.waitpid(child, 0)\n"
    )
    # A change of user marks a process the same way (prctl(2)), so the mark is taken away for the comparison.
    seen = "import ctypes; ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)\n"
    assert in_a_child(seen + program, user=STRANGER).strip() == "seen"
    assert in_a_child(f"{seen}private.leave_no_core()\n{program}", user=STRANGER).strip() == "not seen"


def test_a_file_to_lock_is_this_users_alone_and_known_again_until_it_is_removed_or_replaced(tmp_path: Path) -> None:
    folder = PrivateFolder(tmp_path / "state", "locks")
    folder.remove("one")
    descriptor = folder.open("one")
    try:
        assert (folder.path / "one").stat().st_mode & 0o777 == 0o600
        assert not os.get_inheritable(descriptor)
        assert folder.has("one", descriptor)
        folder.remove("one")
        assert not folder.has("one", descriptor)
        (folder.path / "one").touch()
        assert not folder.has("one", descriptor)
    finally:
        os.close(descriptor)


def test_a_link_in_the_place_of_a_file_to_lock_is_not_followed(tmp_path: Path) -> None:
    folder = PrivateFolder(tmp_path / "state", "locks")
    os.close(folder.open("one"))
    (folder.path / "two").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="is a symbolic link"):
        folder.open("two")
    (folder.path / "three").mkdir()
    with pytest.raises(ConfigError):
        folder.open("three")
    assert not (tmp_path / "elsewhere").exists()
