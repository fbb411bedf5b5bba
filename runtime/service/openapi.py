"""`/openapi.json`, made from the route table: what is served and what is documented cannot differ."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from runtime.service.app import Access, Route


def describe(routes: Sequence[Route], *, title: str, version: str) -> dict[str, Any]:
    """An OpenAPI 3.1 document for `routes`."""
    kinds = [k for route in routes for k in (route.answer, route.body) if k is not None]
    schemas, components = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    by_kind = dict(zip([id(k) for k in kinds], schemas, strict=True))
    paths: dict[str, Any] = {}
    for route in routes:
        operation: dict[str, Any] = {
            "summary": route.summary,
            "operationId": _operation_id(route),
            "responses": {
                "default": {
                    "description": "refused",
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
                }
            },
        }
        if route.access is not Access.OPEN:
            operation["security"] = [{"bearer": []}]
            operation["x-access"] = route.access.value
        parameters = [
            {"name": n, "in": "path", "required": True, "schema": {"type": "string"}}
            for n in re.findall(r"{(\w+)", route.path)
        ] + [
            {"name": n, "in": "query", "description": text, "schema": {"type": "string"}}
            for n, text in route.query.items()
        ]
        if parameters:
            operation["parameters"] = parameters
        if route.body is not None:
            operation["requestBody"] = {
                "required": True,
                "content": {"application/json": {"schema": by_kind[id(route.body)]}},
            }
        answer: dict[str, Any] = {"description": "done"}
        if route.answer is not None:
            answer["content"] = {"application/json": {"schema": by_kind[id(route.answer)]}}
        operation["responses"]["202" if route.path == "/hooks/agent" else "200"] = answer
        paths.setdefault(re.sub(r"{(\w+):[^}]*}", r"{\1}", route.path), {})[route.method.lower()] = operation
    components["Error"] = {
        "type": "object",
        "properties": {
            "ok": {"const": False},
            "error": {
                "type": "object",
                "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
                "required": ["code", "message"],
            },
        },
        "required": ["ok", "error"],
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation_id(route: Route) -> str:
    words = re.findall(r"\w+", re.sub(r":[^}]*}", "}", route.path))
    return "_".join([route.method.lower(), *words])
