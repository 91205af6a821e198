"""The rows of the table, each a use of vllmray as its users have."""

from __future__ import annotations

from collections.abc import Iterable, Set

from tests.gpu.full_gpu import full_gpu
from tests.gpu.memory import filled, memory
from tests.gpu.one_host import one_host
from tests.gpu.places import DockerHost, Place
from tests.gpu.results import Row
from tests.gpu.setting import Setting
from tests.gpu.speed import speed
from tests.gpu.two_hosts import two_hosts


def rows_of(setting: Setting, wanted: Iterable[str]) -> Iterable[list[Row]]:
    """The rows of these numbers, as they are ready; those with Docker late, since their image takes minutes."""
    chosen = set(wanted)
    yield from _alone(setting, chosen, setting.place("native"))
    if chosen & {"3", "4", "4dense"}:
        yield memory(setting, "dense", setting.large)
    for name, shape in setting.filling.items():
        if chosen & {"4", f"4{name}"}:
            yield memory(setting, name, filled(shape, setting.memory, setting.one_host) if setting.is_real else shape)
    if setting.hosts:
        setting.wait_for_image()
        yield from _alone(setting, chosen, setting.place("docker", setting.hosts[0]), setting.hosts[0])
    if chosen & {"2", "5"}:
        yield two_hosts(setting)
    if chosen & {"6", "7"}:
        yield speed(setting)


def _alone(setting: Setting, chosen: Set[str], place: Place, host: DockerHost | None = None) -> Iterable[list[Row]]:
    """Those of one host, in containers or without."""
    if chosen & {"1", f"1{place.name}"}:
        yield one_host(setting, place, host)
    if setting.is_real and chosen & {"9", f"9{place.name}"}:
        yield full_gpu(setting, place)
