"""What a request may ask of an engine: sizes and shapes, judged before the engine sees them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from app.errors import BadRequest

MAX_MESSAGES = 4096
MAX_TOOLS = 128
MAX_SCHEMA_NODES = 5_000
MAX_SCHEMA_DEPTH = 32
MAX_ENUM = 1_000
MAX_PATTERN_CHARS = 512
ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})


class UnsupportedInput(BadRequest):
    """Something that a text model, or this server, does not take."""


def check_messages(messages: Sequence[Any]) -> None:
    """Raises UnsupportedInput. Only text goes to a text model, so nothing is ever fetched for a message."""
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if not isinstance(message, Mapping) or message.get("role") not in ROLES:
            raise UnsupportedInput(
                f"{where}: must be an object with a role of {', '.join(sorted(ROLES))}.", param=where
            )
        _check_content(message.get("content"), f"{where}.content")


def _check_content(content: Any, where: str) -> None:
    if content is None or isinstance(content, str):
        return
    if not isinstance(content, list):
        raise UnsupportedInput(f"{where}: must be a string or a list of text parts.", param=where)
    for index, part in enumerate(content):
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind not in ("text", "refusal") or not isinstance(part.get(kind), str):
            here = f"{where}[{index}]"
            raise UnsupportedInput(f"{here}: this model takes text only; a part must be of type text.", param=here)


def check_tools(tools: Sequence[Any] | None, param: str = "tools") -> None:
    """Raises UnsupportedInput for anything but well-formed functions."""
    for index, tool in enumerate(tools or ()):
        where = f"{param}[{index}]"
        kind = tool.get("type") if isinstance(tool, Mapping) else None
        if kind != "function":
            raise UnsupportedInput(f"{where}: only tools of type function are supported.", param=where)
        function = tool.get("function")
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
            raise UnsupportedInput(f"{where}.function: must be an object with a name.", param=f"{where}.function")
        check_schema(function.get("parameters"), f"{where}.function.parameters")


def check_schema(schema: Any, param: str) -> None:
    """Raises BadRequest for a JSON schema that would take the engine's grammar compiler too long, or never end."""
    if schema is None:
        return
    if not isinstance(schema, Mapping):
        raise BadRequest(f"{param}: must be a JSON schema object.", param=param)
    for count, (node, depth) in enumerate(walk(schema)):
        if count > MAX_SCHEMA_NODES or depth > MAX_SCHEMA_DEPTH:
            limit = f"{MAX_SCHEMA_NODES} nodes, {MAX_SCHEMA_DEPTH} deep"
            raise BadRequest(f"{param}: the schema is too large; the limit is {limit}.", param=param)
        if isinstance(node, Mapping):
            _check_node(node, param)
    _check_references(schema, param)


def _check_node(node: Mapping[str, Any], param: str) -> None:
    enum, pattern, ref = node.get("enum"), node.get("pattern"), node.get("$ref")
    if isinstance(enum, list) and len(enum) > MAX_ENUM:
        raise BadRequest(f"{param}: an enum has more than {MAX_ENUM} values.", param=param)
    if isinstance(pattern, str) and len(pattern) > MAX_PATTERN_CHARS:
        raise BadRequest(f"{param}: a pattern is longer than {MAX_PATTERN_CHARS} characters.", param=param)
    if isinstance(ref, str) and not ref.startswith("#"):
        raise BadRequest(f"{param}: only local references (#/…) are followed.", param=param)


def _check_references(schema: Mapping[str, Any], param: str) -> None:
    """Every `$ref` must lead somewhere, and none back to itself."""
    state: dict[str, str] = {}

    def visit(ref: str) -> None:
        if state.get(ref) == "open":
            raise BadRequest(
                f"{param}: {ref[:100]} refers to itself; recursive schemas are not supported.", param=param
            )
        if ref not in state:
            state[ref] = "open"
            for inner in _references(_lookup(schema, ref, param)):
                visit(inner)
            state[ref] = "closed"

    for ref in set(_references(schema)):
        visit(ref)


def _references(node: Any) -> list[str]:
    return [n["$ref"] for n, _ in walk(node) if isinstance(n, Mapping) and isinstance(n.get("$ref"), str)]


def _lookup(schema: Mapping[str, Any], ref: str, param: str) -> Any:
    node: Any = schema
    for part in ref.lstrip("#").strip("/").split("/") if ref != "#" else ():
        name = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(node, Mapping) or name not in node:
            raise BadRequest(f"{param}: {ref[:100]} leads nowhere.", param=param)
        node = node[name]
    return node


def walk(root: Any) -> Iterator[tuple[Any, int]]:
    """Every node with its depth, without recursion."""
    stack = [(root, 0)]
    while stack:
        node, depth = stack.pop()
        yield node, depth
        inner = node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ()
        stack.extend((child, depth + 1) for child in inner)
