"""Whether an engine's grammar compiles a JSON schema soon and holds to it, judged before an engine sees it. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from app.errors import BadRequest
from app.inference.patterns import MAX_REPEAT, complaint_about, count_repeats
from app.inference.schema_nodes import Node, misshapen, subschemas
from app.inference.schema_references import complaints_about_references
from app.inference.schema_rules import HELD_RULES, RULES, patterns_of
from app.nesting import walk

# Measured with a vocabulary of 150 000 tokens: together they keep a compilation to seconds.
MAX_NODES = 5_000
MAX_DEPTH = 32
MAX_TEXT_CHARS = 120_000
MAX_REPEATS = 4_096
RANGE_REPEATS = 4

Complaints = Iterator[tuple[str, str]]


def check_schema(schema: Any, param: str, *, is_held: bool = True) -> None:
    """Raises BadRequest for a schema that an engine cannot compile soon, or, where it shall be held, not hold to."""
    if schema is None:
        return
    if not isinstance(schema, Mapping):
        raise BadRequest(f"{param}: must be a JSON schema object.", param=param)
    for path, reason in complaints(schema, is_held=is_held):
        where = f" at {path[:200]}" if path else ""
        raise BadRequest(f"{param}{where}: {reason}", param=param)


def complaints(schema: Node, *, is_held: bool) -> Complaints:
    """Where (a JSON pointer) and why. Each relies on there being none before it."""
    yield from _too_large(schema)
    nodes = list(subschemas(schema))
    for path, node in nodes:
        yield from ((path, reason) for reason in misshapen(node))
    for path, node in nodes:
        for rule in RULES + (HELD_RULES if is_held else ()):
            yield from ((path, reason) for reason in rule(node))
    yield from _too_costly([node for _, node in nodes])
    yield from complaints_about_references(schema, nodes, is_held=is_held)


def _too_large(schema: Node) -> Complaints:
    chars = 0
    for count, (node, depth) in enumerate(walk(schema)):
        chars += len(node) if isinstance(node, str) else sum(map(len, node)) if isinstance(node, Mapping) else 0
        if count > MAX_NODES or depth > MAX_DEPTH or chars > MAX_TEXT_CHARS:
            limit = f"{MAX_NODES} nodes, {MAX_DEPTH} deep, {MAX_TEXT_CHARS} characters"
            yield "", f"the schema is too large; the limit is {limit}."
            return


def _too_costly(nodes: list[Node]) -> Complaints:
    """What is said twice is compiled once, and what is not enforced is not compiled."""
    patterns = {pattern for node in nodes for pattern in patterns_of(node) if not complaint_about(pattern)}
    lengths = {(node.get("minLength", 0), node.get("maxLength", 0)) for node in nodes}
    ranges = {tuple(node.get(key) for key in RANGE) for node in nodes if any(key in node for key in RANGE)}
    total = sum(map(count_repeats, patterns)) + RANGE_REPEATS * len(ranges)
    total += sum(min(max(pair), MAX_REPEAT) for pair in lengths)
    if total > MAX_REPEATS:
        yield "", "the patterns, lengths and ranges together are too large; use fewer or shorter ones."


RANGE = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
