"""The shapes of our answers, taken from public OpenAPI documents: names, types, enums, what is required.

    python -m tests.conformance.extract openai openapi.json REVISION

writes `openai_schemas.json` anew from `openapi.json` of github.com/openai/openai-openapi, and with `open_responses`
`open_responses_schemas.json` from `public/openapi/openapi.json` of github.com/openresponses/openresponses.
"""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson

Schema = dict[str, Any]

HERE = Path(__file__).parent
ROOTS = {
    "openai": (
        "CreateChatCompletionResponse",
        "CreateChatCompletionStreamResponse",
        "Response",
        "ResponseStreamEvent",
        "ResponseItemList",
        "ErrorResponse",
        "ListModelsResponse",
        "Model",
        "DeleteModelResponse",
        "OpenAIFile",
        "ListFilesResponse",
        "DeleteFileResponse",
        "FineTuningJob",
        "ListPaginatedFineTuningJobsResponse",
        "ListFineTuningJobEventsResponse",
        "ListFineTuningJobCheckpointsResponse",
    ),
    "open_responses": ("ResponseResource", "StreamingEvent", "CompactResource", "WebSocketErrorEvent"),
}
WORDS = {
    *("$ref", "additionalProperties", "anyOf", "const", "enum", "exclusiveMaximum", "exclusiveMinimum", "items"),
    *("maxItems", "maxLength", "maximum", "minItems", "minLength", "minimum", "nullable", "oneOf", "pattern"),
    *("prefixItems", "properties", "propertyNames", "required", "type"),
}
REFERENCE = "#/components/schemas/"


def main(name: str, source: str, revision: str) -> None:
    document = orjson.loads(Path(source).read_bytes())
    schemas = document["components"]["schemas"]
    found = reached_from([each for each in schemas if is_root(each, ROOTS[name])], schemas)
    head = {"title": document["info"]["title"], "version": document["info"]["version"], "revision": revision}
    shapes = ",\n".join(f'"{each}": {orjson.dumps(found[each]).decode()}' for each in sorted(found))
    text = f'{orjson.dumps(head).decode()[:-1]},\n"$defs": {{\n{shapes}\n}}}}\n'
    (HERE / f"{name}_schemas.json").write_text(text)


def is_root(name: str, roots: tuple[str, ...]) -> bool:
    """Open Responses has no name for the union of its events."""
    return name in roots or ("StreamingEvent" in roots and name.endswith("StreamingEvent"))


def reached_from(names: Iterable[str], schemas: Schema) -> Schema:
    found: Schema = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = shape(schemas[name], schemas)
            waiting += [ref.removeprefix("#/$defs/") for ref in references(found[name])]
    return found


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict) and isinstance(node.get("$ref"), str):
        yield node["$ref"]
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    for child in children:
        yield from references(child)


def shape(node: Any, schemas: Schema) -> Any:
    """A schema without what only people read; what `allOf` lays together is laid together."""
    if not isinstance(node, dict):
        return [shape(each, schemas) for each in node] if isinstance(node, list) else node
    if "allOf" in node:
        return shape(united(node, schemas), schemas)
    if "$recursiveRef" in node:
        return {}  # a filter inside a filter, of a tool that we have not
    kept = {word: node[word] for word in node if word in WORDS}
    if kept.get("exclusiveMinimum") is True:
        kept["exclusiveMinimum"] = kept.pop("minimum")  # the older form
    if "$ref" in kept:
        kept["$ref"] = "#/$defs/" + kept["$ref"].removeprefix(REFERENCE)
    if "properties" in kept:
        kept["properties"] = {name: shape(each, schemas) for name, each in kept["properties"].items()}
    rest = {word: shape(value, schemas) for word, value in kept.items() if word not in ("properties", "enum", "const")}
    return or_null({**kept, **rest})


def united(node: Schema, schemas: Schema) -> Schema:
    whole = {word: value for word, value in node.items() if word in WORDS}
    parts = [part for part in node["allOf"] if part.keys() & {*WORDS, "allOf"}]
    if len(parts) == 1 and not whole:
        only: Schema = parts[0]
        return only  # the others only describe it
    for part in parts:
        told = schemas[part["$ref"].removeprefix(REFERENCE)] if "$ref" in part else part
        told = united(told, schemas) if "allOf" in told else told
        fields = {**whole.get("properties", {}), **told.get("properties", {})}
        required = sorted({*whole.get("required", ()), *told.get("required", ())})
        whole = {**whole, **told, **({"properties": fields, "required": required} if fields else {})}
    return whole


def or_null(node: Schema) -> Schema:
    """`nullable` is a word of OpenAPI's."""
    if not node.pop("nullable", False):
        return node
    return {"anyOf": [node, {"type": "null"}]}


if __name__ == "__main__":
    main(*sys.argv[1:])
