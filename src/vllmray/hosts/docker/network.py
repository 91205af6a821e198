"""A Docker network for containers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from docker import APIClient
from docker import types as docker_types


def make_network(api: APIClient, name: str, labels: Mapping[str, str]) -> str:
    """The network of that name, created unless it exists; returns its subnet."""
    # The daemon's filter matches every network whose name contains this one (moby, daemon/network/filter.go).
    found = [network for network in api.networks(names=[name]) if network["Name"] == name]
    if found:
        return _subnet(found[0])
    # The daemon knows which addresses are free, but lets a container choose its own only in a subnet that was
    # stated (moby daemon/container_operations.go), so the network is created again with it.
    chosen = api.create_network(name, driver="bridge", labels=dict(labels))["Id"]
    subnet = _subnet(api.inspect_network(chosen))
    api.remove_network(chosen)
    pool = docker_types.IPAMConfig(pool_configs=[docker_types.IPAMPool(subnet=subnet)])
    api.create_network(name, driver="bridge", ipam=pool, labels=dict(labels))
    return subnet


def _subnet(network: Mapping[str, Any]) -> str:
    return str(network["IPAM"]["Config"][0]["Subnet"])
