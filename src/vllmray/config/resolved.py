"""ResolvedConfig: a node's settings with the address, interface and sizes found on its host."""

from __future__ import annotations

from vllmray.config.models import ClusterConfig


class ResolvedConfig(ClusterConfig):
    """Created once, when address, interface and sizes are known, and never changed after that."""

    head_ip: str
    node_ip: str
    network_interface: str

    @staticmethod
    def of(config: ClusterConfig, *, node_ip: str, interface: str, head_ip: str) -> ResolvedConfig:
        """The settings with what was found; they were checked before, and in a dry run words stand for addresses."""
        kept = {name: getattr(config, name) for name in ClusterConfig.model_fields}
        found = {"node_ip": node_ip, "network_interface": interface, "head_ip": head_ip}
        return ResolvedConfig.model_construct(**kept | found).typed_on(config)
