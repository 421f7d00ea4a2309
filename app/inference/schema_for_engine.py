"""A JSON schema as an engine is sent it: without what its grammar would turn into text that is no JSON. Pure."""

from collections.abc import Mapping
from typing import Any

from app.engines.formats import PATTERNS
from app.inference.patterns import MAX_REPEAT, complaint_about, of_length, with_optional_groups_spelled_out
from app.inference.schema_nodes import NAMED, ONE, SEVERAL, Node
from app.inference.schema_rules import FORMATS, types_of


def for_engine(schema: Any) -> Any:
    """Takes what `check_schema` lets pass.

    The grammar of a string of a given length lets control characters through, and that of some patterns a bare quote:
    a length becomes a pattern that does not, and what cannot be enforced is left out. So does a
    format that is held too loosely.
    """
    if not isinstance(schema, Mapping):
        return schema
    inner = {key: for_engine(schema[key]) for key in ONE if key in schema}
    inner |= {key: [for_engine(branch) for branch in schema[key]] for key in SEVERAL if key in schema}
    inner |= {key: {_name(key, n): for_engine(s) for n, s in schema[key].items()} for key in NAMED if key in schema}
    node = {**schema, **inner}
    return _with_plain_strings(node) if "string" in types_of(node) else node


def _name(key: str, name: str) -> str:
    return with_optional_groups_spelled_out(name) if key == "patternProperties" else name


def _with_plain_strings(node: Node) -> dict[str, Any]:
    kept = {key: value for key, value in node.items() if key not in ("minLength", "maxLength", "pattern", "format")}
    told = {key: node[key] for key in ("pattern", "format") if key in node}
    if complaint_about(told.get("pattern", "")):
        del told["pattern"]
    if told.get("format", "date") not in FORMATS:
        del told["format"]
    if told.keys() == {"format"} and told["format"] in PATTERNS:
        told = {"pattern": PATTERNS[told["format"]]}
    if not told and (pattern := _length_pattern(node)):
        told["pattern"] = pattern
    if "pattern" in told:
        told["pattern"] = with_optional_groups_spelled_out(told["pattern"])
    return kept | told


def _length_pattern(node: Node) -> str | None:
    least, most = node.get("minLength", 0), node.get("maxLength")
    if (least, most) == (0, None) or max(least, most or 0) > MAX_REPEAT:
        return None
    return of_length(least, most)
