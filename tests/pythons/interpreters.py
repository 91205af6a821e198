"""An interpreter of each Python that vllmray supports: found on this machine, or made from Debian's packages.

    python -m tests.pythons.interpreters      prints where each is, or why there is none

Debian has one Python in each release. Packages of a newer release are unpacked into a folder and need its newer C
library too: the program is told where that is (patchelf), and then runs here like any other, virtual environments
included. Nothing of this machine is changed, and it takes no root.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path

from tests.rig.image import cache_root
from tests.rig.suites import mirror

REPOSITORY = Path(__file__).parents[2]
SUITES = {"3.13": "trixie", "3.14": "forky"}
"""The Debian release whose Python each is; 3.12 was in none."""
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
WORKS = "import ensurepip, sqlite3, ssl, sys, venv; print('%d.%d' % sys.version_info[:2])"
TIMEOUT_S = 300.0


class UnavailableError(Exception):
    """There is no such interpreter to be had this way; the text says why."""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """One Python, or why there is none."""

    minor: str
    """As in "3.14"."""
    path: Path | None
    source: str
    """Where it is from; all that was tried where there is none."""


def supported() -> list[str]:
    """The Pythons that pyproject.toml names, oldest first."""
    classifiers = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["classifiers"]
    return re.findall(r"Python :: (3\.\d+)$", "\n".join(classifiers), re.MULTILINE)


def interpreter(minor: str) -> Interpreter:
    """Found or made now; the ones made are cached."""
    tried = []
    for way in (_on_path, _of_pyenv, _of_uv, _of_debian):
        try:
            path, source = way(minor)
        except UnavailableError as reason:
            tried.append(str(reason))
        else:
            return Interpreter(minor, path, source)
    return Interpreter(minor, None, "; ".join(tried))


def of_release(suite: str) -> Path:
    """The Python of a Debian release, run on this machine.

    Raises:
        UnavailableError: it can't be.
    """
    minor = next((minor for minor, its in SUITES.items() if its == suite), None)
    if minor is None:
        raise UnavailableError(f"which Python Debian {suite} has is not known: {', '.join(SUITES.values())} are")
    return _of_debian(minor)[0]


def _on_path(minor: str) -> tuple[Path, str]:
    for name in (f"python{minor}", "python3"):
        found = shutil.which(name)
        if found and _works(Path(found), minor):
            return Path(found), f"{name} on the PATH"
    raise UnavailableError(f"no python{minor} with venv on the PATH")


def _of_pyenv(minor: str) -> tuple[Path, str]:
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for path in sorted(root.glob(f"versions/{minor}.*/bin/python{minor}"), reverse=True):
        if _works(path, minor):
            return path, "pyenv"
    raise UnavailableError("none in pyenv")


def _of_uv(minor: str) -> tuple[Path, str]:
    uv = shutil.which("uv")
    if uv is None:
        raise UnavailableError("no uv on the PATH")
    done = _run(uv, "python", "install", minor)
    if done.returncode:
        raise UnavailableError(f"uv could not fetch it ({_last_line(done)})")
    path = Path(_run(uv, "python", "find", "--no-project", minor).stdout.strip())
    if _works(path, minor):
        return path, "uv"
    raise UnavailableError(f"uv's {path} does not run")


def _of_debian(minor: str) -> tuple[Path, str]:
    suite = SUITES.get(minor)
    if suite is None:
        raise UnavailableError("no Debian release has it")
    missing = [name for name in ("apt-get", "dpkg-deb", "patchelf") if not shutil.which(name)]
    if missing:
        raise UnavailableError(f"its Debian package can't be unpacked here: no {', '.join(missing)}")
    home = cache_root() / "pythons" / suite
    path = home / f"usr/bin/python{minor}"
    if not path.exists():
        work = home.with_suffix(".work")
        shutil.rmtree(work, ignore_errors=True)
        _unpack(minor, suite, work)
        _move_in(minor, work, home)
        work.rename(home)
    if not _works(path, minor):
        raise UnavailableError(f"Debian {suite}'s does not run here")
    return path, f"Debian {suite}"


def _unpack(minor: str, suite: str, root: Path) -> None:
    """The package with all that it depends on, by an apt that knows of no installed package."""
    apt = root / "apt"
    for folder in ("lists/partial", "archives/partial"):
        (apt / folder).mkdir(parents=True)
    (apt / "sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror()} {suite} main\n")
    (apt / "status").touch()
    places = {
        "Etc::SourceList": apt / "sources.list",
        "Etc::SourceParts": "/dev/null",
        "State::Lists": apt / "lists",
        "State::status": apt / "status",
        "Cache": apt,
        "Cache::Archives": apt / "archives",
    }
    options = [word for name, place in places.items() for word in ("-o", f"Dir::{name}={place}")]
    options += ["-o", "APT::Install-Recommends=false", "-o", "APT::Sandbox::User=root", "-o", "Debug::NoLocking=true"]
    _must("apt-get", *options, "--quiet", "update")
    _must(
        "apt-get", *options, "--quiet", "--yes", "--download-only", "install", f"python{minor}", f"python{minor}-venv"
    )
    for package in sorted((apt / "archives").glob("*.deb")):
        _must("dpkg-deb", "--extract", str(package), str(root))
    shutil.rmtree(apt)


def _move_in(minor: str, root: Path, home: Path) -> None:
    """Lets what is unpacked in root run once it is at home."""
    libraries = next((root / "usr/lib").glob("*-linux-gnu"))
    loader = next(libraries.glob("ld-linux-*.so.*"))
    at_home = {path: home / path.relative_to(root) for path in (libraries, loader)}
    _must(
        *("patchelf", "--set-interpreter", str(at_home[loader])),
        *("--force-rpath", "--set-rpath", str(at_home[libraries]), str(root / f"usr/bin/python{minor}")),
    )
    # Where Debian's ensurepip looks for pip's wheel.
    for settings in (root / f"usr/lib/python{minor}").glob("_sysconfig*"):
        if settings.is_symlink():
            continue
        text = settings.read_text()
        settings.write_text(text.replace("/usr/share/python-wheels/", f"{home}/usr/share/python-wheels/"))


def _works(path: Path, minor: str) -> bool:
    done = _run(str(path), "-c", WORKS)
    return done.returncode == 0 and done.stdout.strip() == minor


def _must(*argv: str) -> str:
    done = _run(*argv)
    if done.returncode:
        raise UnavailableError(f"{argv[0]} failed: {_last_line(done)}")
    return done.stdout


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    return ((done.stderr or done.stdout).strip().splitlines() or ["it printed nothing"])[-1].strip()


def _run(*argv: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        return subprocess.run(
            argv,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(argv, 1, "", f"{argv[0]} did not end in {TIMEOUT_S:.0f} s")


if __name__ == "__main__":
    for each in map(interpreter, supported()):
        print(each.minor, each.path or "not to be had", f"({each.source})")
