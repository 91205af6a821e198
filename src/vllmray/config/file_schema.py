"""The JSON Schema of the cluster file, for editors (Taplo, Even Better TOML); made from the settings themselves."""

from __future__ import annotations

from typing import Any

from vllmray.config.cluster_file import (
    EXECUTORS,
    NOT_IN_THE_CLUSTER_FILE,
    OF_A_HOST,
    OTHER_NAMES,
    OWN_OF_A_HOST,
    SHARED,
    VERSION,
)
from vllmray.config.models import ClusterConfig

DIALECT = "https://json-schema.org/draft/2020-12/schema"
NAME = "cluster-file.json"


def file_schema() -> dict[str, Any]:
    """What an editor checks; `vllmray up` checks more."""
    made = ClusterConfig.model_json_schema()
    fields = {name: _as_written(name, prop) for name, prop in made["properties"].items()}
    for name in (*NOT_IN_THE_CLUSTER_FILE, "build"):
        del fields[name]
    fields["image"] = {**fields["image"], "anyOf": [{"type": "string"}, {"$ref": "#/$defs/ImageBuild"}]}
    fields["image"].pop("type", None)
    other = {new: fields[old] for new, old in OTHER_NAMES.items()}
    of_cluster = {name: prop for name, prop in fields.items() if name not in OWN_OF_A_HOST} | other
    words = {
        "layout": {"type": "string", "description": 'auto, or as `vllmray plan` words it: "TP 2, PP 2"'},
        "executor": {"enum": [*EXECUTORS], "description": "What places an engine's ranks on nodes"},
    }
    of_host = {name: fields[name] for name in OF_A_HOST} | {"model_cache": other["model_cache"]}
    defaults = {name: prop for name, prop in of_host.items() if name not in OWN_OF_A_HOST}
    address = {
        "type": "string",
        "description": "An ssh alias, USER@HOST, or a Docker address (ssh://, tcp://, unix://)",
    }
    role = {"enum": ["head", "worker"], "description": "One host has the head; the others are workers"}
    host = _table({**of_host, "address": address, "role": role}, required=["address"])
    top = {
        "version": {"const": VERSION},
        "share": {
            "type": "array",
            "items": {"enum": [*SHARED]},
            "description": "What one host gets and the others get from it",
        },
        "hosts": {"type": "array", "items": host},
        "defaults": {**_table(defaults), "description": "Settings of every host; a host's own win"},
        "cluster": {"anyOf": [{"type": "string"}, _table({**of_cluster, **words})]},
    }
    definitions = {"$defs": made["$defs"]}
    return {"$schema": DIALECT, "title": "vllmray.toml", **_table({**of_cluster, **top}), **definitions}


def _table(properties: dict[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    return made | ({"required": required} if required else {})


def _as_written(name: str, prop: dict[str, Any]) -> dict[str, Any]:
    """A setting as it may be written: also as text, which is what variables have."""
    described = {"description": prop["description"]} if "description" in prop else {}
    kept = {key: value for key, value in prop.items() if key not in ("description", "default", "title", "of")}
    if name == "env":
        table = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}
        return {**described, "anyOf": [kept, table, {"type": "string"}]}
    if name == "gpus":
        return {**described, "type": ["integer", "string"]}
    if kept.get("type") in ("string", "boolean") or not kept:
        return {**described, **kept}
    return {**described, "anyOf": [kept, {"type": "string"}]}
