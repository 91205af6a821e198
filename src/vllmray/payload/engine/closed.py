"""Checks that Ray requires its token, by a request to the running Ray rather than by its settings.

Standard library only; part of what runs in the engine's container. A Ray older than 2.52, which has no tokens, or one
that was started without, ignores the variables that require one without a warning (ray 2.60,
python/ray/_private/authentication/authentication_token_setup.py; RAY_AUTH_MODE is new in 2.52, Ray's documentation,
"Ray Token Authentication").
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request

ANSWER_S = 4.0
GCS_S = 20.0
"""For a program that imports Ray and then waits up to 5 s for the GCS."""
# Ray's own client without a token. The GCS must refuse every such call (ray.exceptions.AuthenticationError).
GCS_QUESTION = """
import sys
from ray._raylet import GcsClient
try:
    GcsClient(address=sys.argv[1]).get_all_node_info(timeout=5)
    print("answered")
except Exception as error:
    print(f"{type(error).__name__}: {error}".splitlines()[0])
"""
REFUSED = "AuthenticationError"


class OpenError(Exception):
    """Ray or the endpoint answers without authentication; the text says which, for a person."""


class NotKnownError(Exception):
    """Ray has not answered yet."""


def check_ray(dashboard_port: int, address: str) -> None:
    """Check that Ray requires a token: ask its dashboard; where there is none, call its GCS without a token.

    The dashboard answers this without a token (ray 2.60, python/ray/dashboard/http_server_head.py:
    `{"authentication_mode": "token"}`). An installation of Ray without ray[default] has no dashboard.

    Args:
        address: HOST:PORT of the GCS.

    Raises:
        OpenError: it does not, or its dashboard answers something else.
        NotKnownError: neither answered; try again.
    """
    mode = _mode(dashboard_port)
    if mode is None:
        _check_gcs(address)
    elif mode != "token":
        raise OpenError(
            f"Ray does not require token authentication (authentication mode {mode!r}): "
            "anyone who can reach it can run code here"
        )


def _mode(port: int) -> str | None:
    """The mode that the dashboard reports; None while it does not answer. Raises OpenError for another answer."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/api/authentication_mode", timeout=ANSWER_S) as reply:
            return str(json.loads(reply.read())["authentication_mode"])
    except urllib.error.HTTPError as error:
        error.close()
        if error.code >= 500:
            return None
        raise _no_mode(port, f"HTTP {error.code}") from error
    except OSError:
        return None
    except (ValueError, LookupError, TypeError) as error:
        raise _no_mode(port, "something else") from error


def _no_mode(port: int, answer: str) -> OpenError:
    return OpenError(
        f"could not determine whether Ray requires a token: 127.0.0.1:{port}, its dashboard's port, answered {answer} "
        "instead of the authentication mode"
    )


def _check_gcs(address: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH_")}
    argv = [sys.executable, "-c", GCS_QUESTION, address]
    try:
        done = subprocess.run(
            argv,
            env={**environment, "RAY_AUTH_MODE": "disabled"},
            capture_output=True,
            text=True,
            timeout=GCS_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NotKnownError(f"Ray at {address} did not answer within {GCS_S:.0f} s") from None
    said = (done.stdout.strip() or done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
    if said == "answered":
        raise OpenError(f"Ray at {address} answers without a token: anyone who can reach it can run code here")
    if not said.startswith(REFUSED):
        raise NotKnownError(said[:200])
