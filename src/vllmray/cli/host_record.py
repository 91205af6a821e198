"""Which hosts of a cluster file were started from here, so that one that is taken out of the file can be removed."""

from __future__ import annotations

import json
from collections.abc import Mapping

from vllmray.secure_files import PrivateFolder

NAME = "hosts.json"


class HostRecord:
    """Addresses by host name, of one cluster. What runs there is only in the labels of its containers."""

    def __init__(self, cluster: str) -> None:
        from vllmray.config.settings import state_folder

        self._folder = PrivateFolder(state_folder(), "clusters", cluster)

    def read(self) -> dict[str, str]:
        """Empty where there is none, or it can't be read as one."""
        try:
            found = json.loads(self._folder.read(NAME) or "{}")
        except ValueError:
            return {}
        return {str(name): str(address) for name, address in found.items()} if isinstance(found, dict) else {}

    def add(self, hosts: Mapping[str, str]) -> None:
        """Note that nodes are started there now."""
        self._write({**self.read(), **hosts})

    def remove(self, *names: str) -> None:
        """Note that nothing of the cluster is left there."""
        self._write({name: address for name, address in self.read().items() if name not in names})

    def _write(self, hosts: Mapping[str, str]) -> None:
        if hosts != self.read():
            self._folder.write(NAME, json.dumps(hosts) + "\n")
