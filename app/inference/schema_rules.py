"""What an engine's grammar cannot do with one schema object, and what it does not say. Pure."""

from collections.abc import Callable, Iterator
from typing import Any

from app.inference.patterns import MAX_REPEAT, complaint_about
from app.inference.schema_nodes import MAX_INTEGER, SEVERAL, Node
from app.nesting import walk

MAX_ENUM = 1_000
MAX_PROPERTIES = 1_000
MAX_COUNTED_PROPERTIES = 100  # beside minProperties or maxProperties
FORMATS = frozenset(
    {
        *("email", "hostname", "ipv4", "ipv6", "uri", "uri-reference", "uri-template", "uuid"),
        *("date", "time", "date-time", "duration"),
    }
)

# What an engine refuses, or fails at.

PAIRS = (("minLength", "maxLength"), ("minItems", "maxItems"), ("minProperties", "maxProperties"))
ARRAY_LIMITS = ("uniqueItems", "contains", "minContains", "maxContains")


TYPE_NAMES = {
    type(None): ("null",),
    bool: ("boolean",),
    int: ("integer", "number"),
    float: ("number",),
    str: ("string",),
    list: ("array",),
}


def types_of(node: Node) -> frozenset[str]:
    """As an engine reads them: where none is told, the ones that its shape speaks of."""
    told = node.get("type")
    if told is not None:
        return frozenset(told if isinstance(told, list) else [told])
    shaped = {
        "object": ("properties", "additionalProperties", "unevaluatedProperties"),
        "array": ("items", "prefixItems"),
    }
    return frozenset(type_ for type_, keys in shaped.items() if any(key in node for key in keys))


def type_names(value: Any) -> frozenset[str]:
    """Every type that a value is of."""
    if isinstance(value, float) and value.is_integer():
        return frozenset({"number", "integer"})
    names = TYPE_NAMES.get(type(value), ("object",))
    return frozenset(names)


def _empty_ranges(node: Node) -> Iterator[str]:
    for low, high in PAIRS:
        if node.get(low, 0) > node.get(high, MAX_INTEGER):
            yield f"{low} is greater than {high}: no value fits."
    if node.get("maxProperties", MAX_INTEGER) < len(node.get("required", ())):
        yield "maxProperties is less than what is required: no value fits."
    if types_of(node) & {"integer", "number"}:
        yield from _empty_numbers(node, is_whole="integer" in types_of(node))


def _empty_numbers(node: Node, *, is_whole: bool) -> Iterator[str]:
    bounds = [node[key] for key in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum") if key in node]
    if is_whole and any(bound != int(bound) or abs(bound) > MAX_INTEGER for bound in bounds):
        yield "the bounds of an integer must be whole numbers of 64 bits."
        return
    step = 1 if is_whole else 0
    low = max([node[k] + s for k, s in (("minimum", 0), ("exclusiveMinimum", step)) if k in node], default=None)
    high = min([node[k] - s for k, s in (("maximum", 0), ("exclusiveMaximum", step)) if k in node], default=None)
    is_open = not is_whole and bool({"exclusiveMinimum", "exclusiveMaximum"} & node.keys())
    if low is not None and high is not None and (low > high or (low == high and is_open)):
        yield "minimum is greater than maximum: no value fits."


def _arrays(node: Node) -> Iterator[str]:
    n_first = len(node.get("prefixItems", ()))
    if node.get("maxItems", n_first) < n_first:
        yield "maxItems is less than the number of prefixItems."
    is_closed = "array" in types_of(node) and not _is_open(node)
    if is_closed and node.get("minItems", 0) > n_first:
        yield "minItems needs items, or more prefixItems, that say what the items are."


def _few_properties(node: Node) -> Iterator[str]:
    more = ("additionalProperties", "patternProperties", "unevaluatedProperties", "propertyNames")
    is_closed = "object" in types_of(node) and not any(node.get(key, False) is not False for key in more)
    if is_closed and node.get("minProperties", 0) > len(node.get("properties", ())):
        yield "minProperties needs additionalProperties, or more properties, that say what they are."


def _is_open(node: Node) -> bool:
    """Whether an array may hold items beyond the first: an engine wants to be told of what kind."""
    return any(node.get(key, False) is not False for key in ("items", "unevaluatedItems"))


def _false_schemas(node: Node) -> Iterator[str]:
    inner = [*node.get("properties", {}).values(), *(b for key in SEVERAL for b in node.get(key, ()))]
    if any(schema is False for schema in inner):
        yield "the schema false fits no value; leave it out."


def _name_patterns(node: Node) -> Iterator[str]:
    for pattern in node.get("patternProperties", {}):
        if reason := complaint_about(pattern):
            yield f"the pattern {pattern[:50]!r} {reason}."


def patterns_of(node: Node) -> list[str]:
    return [*([node["pattern"]] if "pattern" in node else []), *node.get("patternProperties", {})]


def _long_lists(node: Node) -> Iterator[str]:
    if len(node.get("enum", ())) > MAX_ENUM:
        yield f"an enum has more than {MAX_ENUM} values."
    is_counted = "minProperties" in node or "maxProperties" in node
    limit = MAX_COUNTED_PROPERTIES if is_counted else MAX_PROPERTIES
    if len(node.get("properties", ())) > limit:
        beside = " beside minProperties or maxProperties" if is_counted else ""
        yield f"an object has more than {limit} properties{beside}."


RULES: tuple[Callable[[Node], Iterator[str]], ...] = (
    _empty_ranges,
    _arrays,
    _few_properties,
    _false_schemas,
    _name_patterns,
    _long_lists,
)


# What a grammar does not say.

NOT_HELD = (
    *("not", "if", "then", "else", "multipleOf", "dependentRequired", "dependentSchemas", "dependencies"),
    *("$dynamicRef", "$recursiveRef", "additionalItems", *ARRAY_LIMITS),
)
# An engine reads the first of these that it finds, and nothing beside it.
WHOLE = ("$ref", "const", "enum", "anyOf", "oneOf", "allOf")
OF_TYPE = {
    "string": ("minLength", "maxLength", "pattern", "format"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    "array": ("items", "prefixItems", "minItems", "maxItems", "unevaluatedItems"),
    "object": (
        *("properties", "required", "additionalProperties", "patternProperties", "propertyNames"),
        *("minProperties", "maxProperties", "unevaluatedProperties"),
    ),
}
LIMITS = ("type", *(key for keys in OF_TYPE.values() for key in keys))


def _unheld_keywords(node: Node) -> Iterator[str]:
    for key in NOT_HELD:
        if key in node:
            yield f"{key} cannot be enforced; leave it out, or say it another way."


def _beside_a_whole(node: Node) -> Iterator[str]:
    found = [key for key in WHOLE if key in node]
    if not found:
        return
    first = found[0]
    values = [node["const"]] if first == "const" else node["enum"] if first == "enum" else []
    told = types_of(node) if "type" in node else None
    beside = [*found[1:], *(key for key in LIMITS if key in node)]
    if values and told and all(type_names(value) & told for value in values):
        beside.remove("type")
    if beside:
        yield f"{beside[0]} beside {first} cannot be enforced; say all of it in one place."
    if first == "allOf" and len(node["allOf"]) > 1:
        yield "allOf of several schemas cannot be enforced; merge them into one."


def _huge_numbers(node: Node) -> Iterator[str]:
    values = walk([node.get("const"), *node.get("enum", ())])
    if any(isinstance(value, int) and abs(value) > MAX_INTEGER for value, _ in values):
        yield "a whole number beyond 64 bits cannot be enforced; make it a string."


def _without_its_type(node: Node) -> Iterator[str]:
    if "type" in node or any(key in node for key in WHOLE):
        return
    found = types_of(node)
    for type_, keys in OF_TYPE.items():
        for key in keys:
            if key in node and not found:
                yield f'{key} is enforced only beside "type": "{type_}".'


def _strings(node: Node) -> Iterator[str]:
    if "string" not in types_of(node):
        return
    if "format" in node and node["format"] not in FORMATS:
        yield f"the format {node['format'][:50]!r} is not enforced; those that are: {', '.join(sorted(FORMATS))}."
    if "pattern" in node and (reason := complaint_about(node["pattern"])):
        yield f"the pattern {node['pattern'][:50]!r} {reason}."
    told = [key for key in ("pattern", "format") if key in node]
    lengths = [key for key in ("minLength", "maxLength") if key in node]
    if len(told) > 1 or (told and lengths):
        yield f"{told[0]} is not enforced together with {(told[1:] + lengths)[0]}."
    if any(node[key] > MAX_REPEAT for key in lengths):
        yield f"a length is enforced up to {MAX_REPEAT} characters only; leave it out, and describe it."


def _objects(node: Node) -> Iterator[str]:
    if "object" not in types_of(node):
        return
    missing = [name for name in node.get("required", ()) if name not in node.get("properties", {})]
    if missing:
        yield f"required names {missing[0][:50]!r}, which is not among the properties."
    patterns = node.get("patternProperties", {})
    if len(patterns) > 1 or (patterns and "properties" in node):
        yield "patternProperties is enforced only with one pattern, and without properties."
    if node.get("minProperties", 0) > len(node.get("properties", {})):
        yield "minProperties is enforced only up to the number of properties: a name may come twice."
    if "propertyNames" in node and ("properties" in node or patterns):
        yield "propertyNames is not enforced together with properties or patternProperties."


HELD_RULES: tuple[Callable[[Node], Iterator[str]], ...] = (
    _unheld_keywords,
    _beside_a_whole,
    _huge_numbers,
    _without_its_type,
    _strings,
    _objects,
)
