"""An instance of a JSON schema, the plainest one there is; it stands in for structured output."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app.engines.formats import PATTERNS

DEEP = 5  # below this, only what is required: a schema may contain itself
MAX_DEPTH = 40

# How the gateway tells of a string's length: one set of characters, so many times, and perhaps more of them.
LENGTH = re.compile(r"\^\[[^\]]*\]\{(?P<least>\d+)(?P<range>,(?P<most>\d+))?\}(?P<more>\[[^\]]*\]\*)?\$")

FORMATS = {
    "date": "2024-01-01",
    "date-time": "2024-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "duration": "P1D",
    "email": "someone@example.com",
    "uri": "https://example.com/",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


# How the gateway tells of some of them.
OF_PATTERNS = {pattern: FORMATS[name] for name, pattern in PATTERNS.items()}


@dataclass(frozen=True)
class Place:
    """Where in the schema `root` a value is made: for which property, how deep, the how-manyth in a list."""

    root: dict[str, Any]
    name: str
    depth: int = 0
    nth: int = 0

    def inside(self, name: str, nth: int = 0) -> "Place":
        return Place(self.root, name, self.depth + 1, nth)


def instance_of(schema: Any, *, name: str = "answer") -> Any:
    """Strings say the name of the property they fill. Of a `pattern` only a length or a format counts; `not` and `if`
    never do.
    """
    return _build(schema, Place(schema if isinstance(schema, dict) else {}, name))


def _build(schema: Any, at: Place) -> Any:
    if not isinstance(schema, dict) or at.depth > MAX_DEPTH:
        return at.name
    node = resolved(schema, at.root)
    branches = node.pop("anyOf", None) or node.pop("oneOf", None)
    if branches:
        return _build({**node, **_shallowest(branches, at.depth)}, at)
    if "const" in node:
        return node["const"]
    if node.get("enum"):
        return node["enum"][at.nth % len(node["enum"])]
    make = MAKERS.get(_type_of(node, at.depth))
    return make(node, at) if make else None


def resolved(node: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    """`$ref` followed inside this document, `allOf` laid together."""
    for _ in range(MAX_DEPTH):
        if not str(node.get("$ref", "")).startswith("#"):
            break
        node = {**_at(root, node["$ref"]), **_without(node, "$ref")}
    merged = _without(node, "allOf")
    for part in node.get("allOf") or []:
        more = resolved(part, root)
        merged = {
            **merged,
            **more,
            "properties": {**merged.get("properties", {}), **more.get("properties", {})},
            "required": [*merged.get("required", []), *more.get("required", [])],
        }
    return merged


def _at(root: dict[str, Any], pointer: str) -> dict[str, Any]:
    node: Any = root
    for step in pointer.lstrip("#").strip("/").split("/"):
        if step and isinstance(node, dict):
            node = node.get(step.replace("~1", "/").replace("~0", "~"))
    return node if isinstance(node, dict) else {}


def _without(node: dict[str, Any], key: str) -> dict[str, Any]:
    return {k: v for k, v in node.items() if k != key}


def _shallowest(branches: list[Any], depth: int) -> dict[str, Any]:
    """The first branch; deep down, one that ends here if there is one."""
    ends = [b for b in branches if isinstance(b, dict) and not b.keys() & {"$ref", "properties", "items", "anyOf"}]
    branch = ends[-1] if depth >= DEEP and ends else branches[0]
    return branch if isinstance(branch, dict) else {}


def _type_of(node: dict[str, Any], depth: int) -> str:
    kind = node.get("type")
    if isinstance(kind, list):
        return "null" if "null" in kind and depth >= DEEP else str(next((k for k in kind if k != "null"), "null"))
    if kind:
        return str(kind)
    if "properties" in node or "required" in node:
        return "object"
    return "array" if "items" in node or "prefixItems" in node else "string"


def _object(node: dict[str, Any], at: Place) -> dict[str, Any]:
    """What is required; everything where nothing is and it is not deep."""
    properties = node.get("properties") or {}
    required = dict.fromkeys(node.get("required") or ([] if at.depth >= DEEP else properties))
    in_order = [key for key in properties if key in required] + [key for key in required if key not in properties]
    return {
        key: _build(properties.get(key, {"type": "string"}), at.inside(key))
        for key in in_order[: node.get("maxProperties")]
    }


def _array(node: dict[str, Any], at: Place) -> list[Any]:
    first = node.get("prefixItems") or []
    length = max(node.get("minItems", 0 if at.depth >= DEEP else 1), len(first))
    length = min(length, node.get("maxItems", length))
    rest = node.get("items", {"type": "string"})
    return [_build(first[i] if i < len(first) else rest, at.inside(at.name, i)) for i in range(length)]


def _string(node: dict[str, Any], at: Place) -> str:
    if node.get("format") in FORMATS:
        return FORMATS[node["format"]]
    if node.get("pattern") in OF_PATTERNS:
        return OF_PATTERNS[node["pattern"]]
    text = f"{at.name} {at.nth + 1}" if at.nth else at.name
    least, most = _lengths(node)
    return text.ljust(least, ".")[:most]


def _lengths(node: dict[str, Any]) -> tuple[int, int | None]:
    match = LENGTH.fullmatch(node.get("pattern", ""))
    if node.get("pattern") == "^$":
        return 0, 0
    if match is None:
        return node.get("minLength", 0), node.get("maxLength")
    least = int(match["least"])
    return least, None if match["more"] else int(match["most"] or least)


def _number(node: dict[str, Any], at: Place) -> int | float:
    whole = _type_of(node, at.depth) == "integer"
    step = node.get("multipleOf", 1)
    low, high = node.get("minimum"), node.get("maximum")
    if (above := node.get("exclusiveMinimum")) is not None:
        low = above + (step if whole else step / 2)
    if (below := node.get("exclusiveMaximum")) is not None:
        high = below - (step if whole else step / 2)
    if low is None:
        low = step if high is None else min(step, high)
    value = -(-low // step) * step + at.nth * step
    if high is not None and value > high:
        value = max(high // step * step, low)
    return int(value) if whole else value


def _boolean(_node: dict[str, Any], at: Place) -> bool:
    return at.nth % 2 == 0


MAKERS: dict[str, Callable[[dict[str, Any], Place], Any]] = {
    "object": _object,
    "array": _array,
    "string": _string,
    "integer": _number,
    "number": _number,
    "boolean": _boolean,
}
