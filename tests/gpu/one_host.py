"""1 and 8: one host with both GPUs."""

from __future__ import annotations

from tests.gpu.engine import answers, engine, plan
from tests.gpu.places import DockerHost, Place
from tests.gpu.results import Row
from tests.gpu.setting import Setting, nothing_left


def one_host(setting: Setting, place: Place, host: DockerHost | None = None) -> list[Row]:
    """1 and 8: one host with both GPUs, and how its containers got them."""
    given = Row("8", "how containers get their GPUs")
    row = Row(f"1 {place.name}", f"one host, {place.name}, {setting.small.name}, TP {setting.one_host.tensor}")
    model = setting.model(setting.small)
    said = plan(place, model, setting.one_host, setting.after) if setting.is_real else {}
    with engine(place, model, setting.one_host, row, setting.after) as found:
        if found:
            gpus = next((line for line in found.up.stderr.splitlines() if line.startswith("network and GPUs")), "")
            row.saw(gpus.partition(": ")[2] or "no line about GPUs")
            row.must(f"{setting.one_host.gpus} GPU" in gpus, "the GPUs were not found")
            row.saw(f"up to the first token in {found.seconds:.1f} s")
            answers(found, row)
            if host:
                form = "{{json .HostConfig.DeviceRequests}} {{range .HostConfig.Devices}} {{.PathOnHost}}{{end}}"
                given.saw(host.docker("inspect", "--format", form, "vllmray-head").strip())
            if said:
                row.saw(f"plan: {said.get('weights', 0):.1f} GiB of weights a GPU")
            if "weights" in (logged := found.logged()):
                row.saw(f"vLLM: {logged['weights']:.1f} GiB")
    nothing_left(setting, row)
    return [row, given] if host else [row]
