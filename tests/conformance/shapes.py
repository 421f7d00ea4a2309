"""Is an answer what a public document says it is? Its fields and ours, and none that neither knows."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from app.jobs.hyperparameters import HyperparametersIn

Schema = dict[str, Any]


@dataclass(frozen=True)
class Document:
    """A document's schemas. A place in them is a schema's name and the way to a property: `Response.usage`."""

    name: str
    added: Mapping[str, tuple[str, ...]]
    """Which fields we add to the object at a place."""
    nullable: tuple[str, ...]
    """Which places may be null though the schema forgets it."""
    unknown: tuple[str, ...] = ()
    """What stands at these places the schema says wrongly."""

    def check(self, name: str, answer: Any) -> None:
        """Fails with the place and the reason where `answer` is not a `name`."""
        validator = Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": self.definitions})
        fault = best_match(validator.iter_errors(answer))
        assert fault is None, f"{self.name}: {name} at {fault.json_path}: {fault.message[:1000]}"

    def check_event(self, event: Mapping[str, Any]) -> None:
        """The same for one event of a Response's stream."""
        assert event["type"] in self.events, f"{self.name} knows no event {event['type']}"
        self.check(self.events[event["type"]], event)

    @cached_property
    def definitions(self) -> Schema:
        document = orjson.loads((Path(__file__).parent / f"{self.name}_schemas.json").read_bytes())
        return {name: self._closed(schema, name) for name, schema in document["$defs"].items()}

    @cached_property
    def events(self) -> Mapping[str, str]:
        """The names of the events' schemas, by the events' types."""
        fields = {name: schema.get("properties", {}) for name, schema in self.definitions.items()}
        return {each["type"]["enum"][0]: name for name, each in fields.items() if "sequence_number" in each}

    def _closed(self, node: Any, place: str) -> Any:
        """The same schema, with objects that have no more fields than those that are named."""
        if isinstance(node, list):
            return [self._closed(each, place) for each in node]
        if not isinstance(node, dict) or "properties" not in node:
            return node if not isinstance(node, dict) else {k: self._closed(v, place) for k, v in node.items()}
        rest = {word: self._closed(value, place) for word, value in node.items() if word != "properties"}
        properties = {name: self._property(each, f"{place}.{name}") for name, each in node["properties"].items()}
        ours: Schema = {name: {} for name in self.added.get(place, ())}
        return {"additionalProperties": False, **rest, "properties": {**ours, **properties}}

    def _property(self, node: Schema, place: str) -> Schema:
        if place in self.unknown:
            return {}
        closed: Schema = self._closed(node, place)
        return {"anyOf": [closed, {"type": "null"}]} if place in self.nullable else closed


OPENAI = Document(
    "openai",
    added={
        "CreateChatCompletionResponse": ("selected_gpu",),
        "CreateChatCompletionResponse.choices": ("stop_reason",),
        "CreateChatCompletionStreamResponse.choices": ("stop_reason",),
        "ChatCompletionResponseMessage": ("reasoning",),
        "ChatCompletionStreamResponseDelta": ("reasoning",),
        "CompletionUsage.prompt_tokens_details": ("created_cache_tokens",),  # vLLM's
        # The last three are in the document's examples, and in Open Responses.
        "Response": ("selected_gpu", "frequency_penalty", "presence_penalty", "store"),
        "ResponseLogProb": ("bytes",),  # Open Responses wants it there too
        "ResponseLogProb.top_logprobs": ("bytes",),
        "ErrorResponse": ("detail", "troubleshooting"),
        "Model": ("base_model", "context_length", "supported_gpus", "trainable"),
        "ListModelsResponse": ("gpus", "fine_tuned_models", "available_models", "organization_id", "customer_id"),
        "ListPaginatedFineTuningJobsResponse": ("first_id", "last_id"),
        "OpenAIFile": ("sha256",),
        "FineTuningJob": ("training_type", "suffix", "gpu", "started_at", "updated_at"),
        "FineTuningJob.hyperparameters": tuple(HyperparametersIn.model_fields),
        "FineTuneSupervisedHyperparameters": tuple(HyperparametersIn.model_fields),
        "FineTuningJobEvent": ("seq", "event_type"),
        "ListFineTuningJobEventsResponse": ("first_id", "last_id"),
    },
    nullable=(
        # null in the document's own examples
        "Response.usage",
        "Response.user",
        # null in Open Responses
        "TextResponseFormatJsonSchema.description",
        # an empty page has no ends
        "ListFilesResponse.first_id",
        "ListFilesResponse.last_id",
        "OpenAIFile.status_details",
    ),
)

OPEN_RESPONSES = Document(
    "open_responses",
    added={
        "ResponseResource": ("selected_gpu", "output_text", "user"),
        "CompactResource": ("selected_gpu",),
        "InputTokensDetails": ("cache_write_tokens",),  # OpenAI's requires it
        "ReasoningBody": ("status",),
        "ResponseFunctionCallArgumentsDoneStreamingEvent": ("name",),
    },
    nullable=(),
    unknown=("JsonSchemaResponseFormat.schema",),  # it says null, and nothing else
)
