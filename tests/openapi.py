"""What an OpenAPI document must hold to."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any


def check_openapi(document: dict[str, Any]) -> None:
    """The rules of OpenAPI 3.1 that a generated document could break."""
    assert json.loads(json.dumps(document)) == document, "plain JSON"
    assert document["openapi"].startswith("3.1.")
    assert {"title", "version"} <= set(document["info"])
    operations = [op for methods in document["paths"].values() for op in methods.values()]
    ids = [op["operationId"] for op in operations]
    assert len(set(ids)) == len(ids)
    for path, methods in document["paths"].items():
        assert path.startswith("/")
        for op in methods.values():
            assert op["responses"]
            assert all(answer["description"] for answer in op["responses"].values())
            in_path = [p["name"] for p in op.get("parameters", []) if p["in"] == "path"]
            assert in_path == re.findall(r"{(\w+)}", path)
            for requirement in op.get("security", []):
                assert set(requirement) <= set(document["components"]["securitySchemes"])
    references = list(find_references(document))
    assert references
    for reference in references:
        here: Any = document
        for part in reference.removeprefix("#/").split("/"):
            here = here[part]
        assert isinstance(here, dict)


def find_references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from find_references(value)
    elif isinstance(node, list):
        for value in node:
            yield from find_references(value)
