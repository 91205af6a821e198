"""Each fault of the matrix, on real hosts with a real model, while a client asks without pause."""

from __future__ import annotations

import pytest

from tests.faults.cluster import Cluster, eventually
from tests.faults.faults import CATALOGUE, Fault
from tests.faults.report import write
from tests.faults.row import Row, run


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    chosen = [fault for fault in CATALOGUE if fault.quick or metafunc.config.getoption("--faults")]
    metafunc.parametrize("fault", chosen, ids=lambda fault: fault.name)


@pytest.mark.timeout(1200)
def test_the_cluster_serves_again_by_itself(cluster: Cluster, fault: Fault, rows: list[Row]) -> None:
    if not eventually(cluster.serves, 60):  # the fault before left it so, and its row says it
        cluster.down()
        cluster.up()
    row = run(cluster, fault)
    rows.append(row)
    print(row)
    write(rows)
    assert row.problems == []
