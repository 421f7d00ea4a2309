"""What of a JSON schema is seen only by following its references. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from app.inference.schema_nodes import Node
from app.inference.schema_rules import type_names, types_of

MAX_REFERENCES = 256

Places = Sequence[tuple[str, Node]]


def complaints_about_references(schema: Node, places: Places, *, is_held: bool) -> Iterator[tuple[str, str]]:
    """Where, and why. `places`: all schemas inside of `schema`, with their JSON pointers."""
    refs: dict[str, str] = {}
    for path, node in places:
        if "$ref" in node:
            refs.setdefault(node["$ref"], path)
    if len(refs) > MAX_REFERENCES:
        yield "", f"more than {MAX_REFERENCES} definitions are referred to."
    for ref, path in refs.items():
        if reason := _wrong_reference(schema, ref):
            yield path, reason
    for ref in _endless(schema, set(refs)):
        yield refs.get(ref, ""), f"{ref[:100]} requires itself: no value of it would ever end."
    for path, node in places if is_held else ():
        if not _are_apart(schema, node.get("oneOf", [])):
            yield (
                path,
                (
                    "oneOf cannot be enforced where more than one branch may fit; use anyOf, or give each branch a "
                    "required property whose const tells it apart."
                ),
            )


def _wrong_reference(schema: Node, ref: str) -> str | None:
    if ref != "#" and not ref.startswith("#/"):
        return "only local references (#/…) are followed."
    if "~" in ref or "%" in ref:
        return f"{ref[:100]} has an escaped name; rename the definition."
    return None if isinstance(_look_up(schema, ref), Mapping) else f"{ref[:100]} leads nowhere."


def _look_up(schema: Node, ref: str) -> Any:
    """As an engine does: through objects only, by their names as they are written."""
    node: Any = schema
    for name in ref[2:].split("/") if ref != "#" else ():
        node = node.get(name) if isinstance(node, Mapping) else None
    return node


def _endless(schema: Node, refs: set[str]) -> set[str]:
    """The references whose every value holds another of themselves; `#` for the schema itself."""
    refs = refs | {"#"}
    ending: set[str] = set()
    while new := {ref for ref in refs - ending if _ends(_look_up(schema, ref), ending)}:
        ending |= new
    return refs - ending


def _ends(node: Any, ending: set[str]) -> bool:
    """Whether a value of it can be finite, if the references in `ending` can."""
    if not isinstance(node, Mapping):
        return True
    if "$ref" in node:
        return node["$ref"] in ending
    if any(key in node for key in ("const", "enum")):
        return True
    for key in ("anyOf", "oneOf"):
        if key in node:
            return any(_ends(branch, ending) for branch in node[key])
    return all(_ends(inner, ending) for inner in _needed(node))


def _needed(node: Node) -> Iterator[Any]:
    """The schemas of what must be there in every value."""
    yield from node.get("allOf", ())
    if set(types_of(node)) <= {"object"}:
        yield from (node.get("properties", {}).get(name) for name in node.get("required", ()))
    if set(types_of(node)) <= {"array"}:
        n_least, first = node.get("minItems", 0), node.get("prefixItems", [])
        yield from first[:n_least]
        if n_least > len(first):
            yield node.get("items")


def _are_apart(schema: Node, branches: Sequence[Any]) -> bool:
    """Whether no value fits two of them."""
    followed = [_follow(schema, branch) for branch in branches]
    pairs = [(a, b) for i, a in enumerate(followed) for b in followed[:i]]
    return all(isinstance(a, Mapping) and isinstance(b, Mapping) and _is_apart(a, b) for a, b in pairs)


def _follow(schema: Node, branch: Any) -> Any:
    seen: set[str] = set()
    while isinstance(branch, Mapping) and "$ref" in branch and branch["$ref"] not in seen:
        seen.add(branch["$ref"])
        branch = _look_up(schema, branch["$ref"])
    return branch


def _is_apart(a: Node, b: Node) -> bool:
    told = _told(a), _told(b)
    if told[0] and told[1]:
        return told[0].isdisjoint(told[1])
    types = _types(a), _types(b)
    if types[0] and types[1] and types[0].isdisjoint(types[1]):
        return True
    shared = set(a.get("required", ())) & set(b.get("required", ()))
    both = [(_told_of(a, name), _told_of(b, name)) for name in shared]
    is_object = types_of(a) == types_of(b) == {"object"}
    return is_object and any(one and other and one.isdisjoint(other) for one, other in both)


def _types(node: Node) -> frozenset[str]:
    types = types_of(node).union(*(type_names(value) for value in _values(node)))
    return types | {"integer"} if "number" in types else types


def _values(node: Node) -> list[Any]:
    return [node["const"]] if "const" in node else list(node.get("enum", ()))


def _told(node: Node) -> set[str]:
    """The strings that a value must be one of, where it must be one of some strings."""
    values = _values(node)
    return set(values) if all(isinstance(value, str) for value in values) else set()


def _told_of(node: Node, name: str) -> set[str]:
    inner = node.get("properties", {}).get(name)
    return _told(inner) if isinstance(inner, Mapping) else set()
