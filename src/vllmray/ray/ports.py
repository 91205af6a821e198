"""Every port of a Ray node, fixed: a firewall rule can be written, and two clusters can share a host.

Source of names and defaults: ray 2.60, python/ray/scripts/scripts.py, and "Ports configurations" in Ray's
documentation. Where Ray would choose at random, a number is chosen here. The last two have no flag, only an environment
variable: ray/autoscaler/_private/constants.py and ray/dashboard/consts.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Port = Annotated[int, Field(ge=1024, le=65535)]


class RayPorts(BaseModel):
    """Ports of a Ray node; those of the head alone are marked so."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gcs: Port = Field(6379, description="Ray's control store (head); what --head-ip means")
    dashboard: Port = Field(8265, description="dashboard on 127.0.0.1 (head)")
    client_server: Port = Field(10001, description="Ray client (head; only where the image has ray[default])")
    node_manager: Port = Field(6380, description="raylet")
    object_manager: Port = Field(6381, description="object transfer")
    runtime_env_agent: Port = Field(6382, description="runtime environment agent")
    dashboard_agent_grpc: Port = Field(6383, description="dashboard agent, gRPC")
    dashboard_agent_listen: Port = Field(52365, description="dashboard agent, HTTP")
    metrics_export: Port = Field(6384, description="metrics")
    min_worker: Port = Field(10002, description="first port of Ray's worker processes")
    max_worker: Port = Field(10999, description="last port of Ray's worker processes")
    autoscaler_metrics: Port = Field(44217, description="monitor's metrics (head)")
    dashboard_metrics: Port = Field(44227, description="dashboard's metrics (head)")

    def single(self) -> dict[str, int]:
        """Every port that is not a range's end, by name."""
        return {name: port for name, port in self if name not in ("min_worker", "max_worker")}

    def clashes(self, others: Mapping[str, int]) -> list[str]:
        """Two names for one port, or a port inside the range of the worker processes; Ray refuses these at start."""
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

    def listening(self, role: str) -> dict[str, int]:
        """The ports that a node of this role takes and that must be free before it starts."""
        head_only = ("gcs", "dashboard", "client_server", "autoscaler_metrics", "dashboard_metrics")
        return {name: port for name, port in self.single().items() if role == "head" or name not in head_only}
