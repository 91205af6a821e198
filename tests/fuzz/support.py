"""How often, and what is watched for."""

from __future__ import annotations

import traceback

from hypothesis import HealthCheck, Phase, settings

from vllmray.errors import VllmrayError

# The same cases each time: one that fails is found again by running it again.
MANY = settings(
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)


def told(error: VllmrayError) -> str:
    """Every word that a user can get to see of an error, also with --debug: those that it came from among them."""
    words = [str(error.message), str(error.details), str(error.hint)]
    at: BaseException | None = error
    while at:
        words += traceback.format_exception_only(at)
        at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)
    return "\n".join(words)
