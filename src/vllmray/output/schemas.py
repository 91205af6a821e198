"""JSON Schemas of what --json prints, made from the types in results.py."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from vllmray.output import plan_results, results, stored_results
from vllmray.output.envelope import SCHEMA_VERSION

RESULTS = {
    "init": results.Written,
    "import": results.Written,
    "plan": plan_results.Layouts,
    "up": results.Up,
    "up --progress": results.Progress,
    "up --dry-run": results.Plan,
    "restart": results.Restart,
    "down": results.Down,
    "demo": results.Demo,
    "status": results.Status,
    "logs": results.Logs,
    "logs --bundle": results.Bundle,
    "events": results.Events,
    "dashboard": results.Dashboard,
    "chat": results.Chat,
    "key": results.Key,
    "token": results.Token,
    "token rotate": results.Rotation,
    "model pull": stored_results.ModelFiles,
    "model ls": stored_results.ModelFiles,
    "model verify": stored_results.ModelFiles,
    "model rm": stored_results.RemovedModel,
    "image inspect": stored_results.ImageContents,
    "image build": stored_results.BuiltImage,
    "image copy": stored_results.CopiedImage,
    "version": results.Versions,
}
"""The type of each command's result, by the envelope's `command`."""
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def file_name(command: str) -> str:
    """Of a command's schema: "up-dry-run.json"."""
    return f"{command.replace(' --', '-').replace(' ', '-')}.json"


def schemas() -> dict[str, dict[str, Any]]:
    """Every schema, by its file's name; that of errors is error.json."""
    made = {file_name(command): _envelope({"const": command}, "data", kind) for command, kind in RESULTS.items()}
    return made | {"error.json": _envelope({"type": "string"}, "error", results.Failure)}


def _envelope(command: dict[str, str], key: str, kind: type[Any]) -> dict[str, Any]:
    inner = TypeAdapter(kind).json_schema(mode="serialization")
    definitions = inner.pop("$defs", {})
    properties = {
        "schema": {"const": SCHEMA_VERSION, "description": "The version of these schemas"},
        "vllmray": {"type": "string", "description": "The version of vllmray"},
        "command": command,
        key: inner,
    }
    made = {"$schema": DIALECT, "type": "object", "properties": properties, "required": [*properties]}
    return made | {"additionalProperties": False} | ({"$defs": definitions} if definitions else {})
