"""How Ray is added to an image that lacks it; pure.

VLLM's own images stopped shipping Ray in 2026 (vllm-project/vllm pull request 36170), and Ray refuses a node whose Ray
or Python version differs (ray/_private/utils.py, check_version_info). So one version, the same on every host.
"""

from __future__ import annotations

import hashlib
import re
import shlex

RAY_REQUIREMENT = "ray[default]==2.60.0"
RAY_PYTHONS = ((3, 10), (3, 14))
"""The oldest and the newest Python that PyPI has wheels of that Ray for. There is no source distribution, so no other
Python can install it.
"""
OLDEST_RAY = (2, 52)
"""The first with token authentication (Ray's documentation, "Ray Token Authentication": available in Ray 2.52.0 or
later). An older one ignores RAY_AUTH_MODE.
"""
OLDEST_RAY_TEXT = ".".join(map(str, OLDEST_RAY))

# uv where the image has it, as vLLM's own images do and document; a Python that Debian manages is installed into too
# (PEP 668): the image is ours alone.
INSTALL = (
    "if command -v uv >/dev/null; then uv pip install --system --break-system-packages {requirement}; "
    "else PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --no-cache-dir {requirement}; fi"
)


def asks_for_token(ray_version: str) -> bool:
    """Whether a Ray of that version supports token authentication; False for what is not a version."""
    found = re.match(r"(\d+)\.(\d+)", ray_version)
    return found is not None and (int(found[1]), int(found[2])) >= OLDEST_RAY


def lacks_wheel(python: str) -> str | None:
    """Why that version of Python can't have RAY_REQUIREMENT; None when it can, or when the version is not known."""
    found = re.match(r"(\d+)\.(\d+)", python)
    oldest, newest = RAY_PYTHONS
    if found is None or oldest <= (int(found[1]), int(found[2])) <= newest:
        return None
    ray = RAY_REQUIREMENT.partition("==")[2]
    return f"Ray {ray} has no wheel for Python {python}, only for {_dotted(oldest)} to {_dotted(newest)}"


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def derived_name(base_id: str, requirement: str = RAY_REQUIREMENT) -> str:
    """The name of the image that is derived from a base: the same on every host that has the same base."""
    digest = hashlib.sha256(f"{base_id}\n{requirement}".encode()).hexdigest()
    return f"vllmray-derived:{digest[:12]}"


def derived_dockerfile(base: str, user: str, requirement: str = RAY_REQUIREMENT) -> str:
    """Adds Ray to a base as root, and leaves its user, entrypoint and all else unchanged.

    Args:
        base: a digest or an id, so that it is the same image at the time of the build.
        user: as the base says; empty for root.
    """
    lines = [f"FROM {base}", f"RUN {INSTALL.format(requirement=shlex.quote(requirement))}"]
    if user not in ("", "root", "0"):
        lines = [lines[0], "USER root", lines[1], f"USER {user}"]
    return "\n".join(lines) + "\n"


def by_hand(name: str, requirement: str = RAY_REQUIREMENT) -> str:
    """The two lines that do the same in a shell."""
    text = f"FROM {name}\\nRUN uv pip install --system '{requirement}'\\n"
    return f'printf "{text}" | docker build -t vllm-ray -\n--image vllm-ray'
