"""Every port of a Ray node, fixed so that a firewall rule can be written and two clusters can share a host.

Source of names and defaults: ray 2.60, python/ray/scripts/scripts.py, and "Ports configurations" in Ray's
documentation. Where Ray would choose a random port, one is fixed here. The last two have no flag, only an environment
variable: ray/autoscaler/_private/constants.py and ray/dashboard/consts.py.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Port = Annotated[int, Field(ge=1024, le=65535)]


METRICS = ("metrics_export", "autoscaler_metrics", "dashboard_metrics")
HEAD_ONLY = ("gcs", "dashboard", "autoscaler_metrics", "dashboard_metrics")


class RayPorts(BaseModel):
    """Ports of a Ray node; those marked "head" are used on the head only."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gcs: Port = Field(6379, description="GCS, Ray's control store (head); workers connect to it")
    dashboard: Port = Field(8265, description="dashboard on 127.0.0.1 (head)")
    node_manager: Port = Field(6380, description="raylet")
    object_manager: Port = Field(6381, description="object transfer")
    runtime_env_agent: Port = Field(6382, description="runtime environment agent")
    dashboard_agent_grpc: Port = Field(6383, description="dashboard agent, gRPC")
    dashboard_agent_listen: Port = Field(52365, description="dashboard agent, HTTP")
    metrics_export: Port = Field(6384, description="metrics (with --ray-metrics)")
    min_worker: Port = Field(10002, description="first port of Ray's worker processes")
    max_worker: Port = Field(10999, description="last port of Ray's worker processes")
    autoscaler_metrics: Port = Field(44217, description="monitor's metrics (head, with --ray-metrics)")
    dashboard_metrics: Port = Field(44227, description="dashboard's metrics (head, with --ray-metrics)")

    def single(self) -> dict[str, int]:
        """Every port except the range of the worker processes, by name."""
        return {name: port for name, port in self if name not in ("min_worker", "max_worker")}

    def moved(self, places: int, names: Collection[str]) -> RayPorts:
        """A copy with these ports shifted by `places`, for further nodes on one host."""
        moved = {
            name: port + places * (1000 if name in ("min_worker", "max_worker") else 10)
            for name, port in self
            if name in names
        }
        return self.model_copy(update=moved)

    def beside(self, place: int) -> RayPorts:
        """The ports of one of several nodes on one host: shifted by `place`, except those that the user chose."""
        default = RayPorts()
        left = [name for name, port in self if name not in HEAD_ONLY and port == getattr(default, name)]
        return self.moved(place, left)

    def clashes(self, others: Mapping[str, int]) -> list[str]:
        """A line for each port that is used twice or is in the range of the worker processes, which Ray refuses."""
        problems = []
        if self.min_worker >= self.max_worker:
            problems.append("ray_ports: min_worker must be below max_worker")
        owner: dict[int, str] = {}
        for name, port in (*self.single().items(), *others.items()):
            if port in owner:
                problems.append(f"{name} and {owner[port]} are both {port}: choose another for one of them")
            if self.min_worker <= port <= self.max_worker:
                problems.append(
                    f"{name} {port} is inside Ray's worker ports {self.min_worker}-{self.max_worker}: move one of them"
                )
            owner.setdefault(port, name)
        return problems

    def listening(self, role: str, *, metrics: bool = False) -> dict[str, int]:
        """The ports that a node of this role listens on, which must be free before it starts."""
        left_out = (() if role == "head" else HEAD_ONLY) + (() if metrics else METRICS)
        return {name: port for name, port in self.single().items() if name not in left_out}
