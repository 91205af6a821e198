"""One cluster for all faults; and which of them run: a few every day, all with --faults."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.cluster import Cluster
from tests.faults.row import Row
from tests.rig.hosts import Rig


@pytest.fixture(scope="session")
def rows() -> list[Row]:
    """What the run found, for the table."""
    return []


@pytest.fixture(scope="package")
def cluster(rig: Rig, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Serves at the beginning; nothing of it is left at the end."""
    for host in rig.hosts:
        host.clear()
    folder: Path = tmp_path_factory.mktemp("faults")
    made = Cluster(rig, folder, clocks=request.config.getoption("--faults"))
    made.up()
    yield made
    made.down()
    made.release()
    assert made.left() == []
