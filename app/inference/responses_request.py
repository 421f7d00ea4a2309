"""What a client may ask of POST /responses: fields, types and bounds."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema, model_validator

from app.errors import BadRequest
from app.inference.bounds import FUNCTION_NAME, MAX_TOOLS, UnsupportedInput
from app.inference.chat_request import TokenBudget

MAX_SAMPLES = 20
LOGPROBS = "message.output_text.logprobs"
SEALED_REASONING = "reasoning.encrypted_content"
# All that OpenAI knows. Those about tools and inputs that are not here ask for parts of items that never come.
Includable = Literal[
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "message.input_image.image_url",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
]

Key = Annotated[str, StringConstraints(max_length=64)]
Value = Annotated[str, StringConstraints(max_length=512)]
Name = Annotated[str, StringConstraints(max_length=512)]
FormatName = Annotated[str, StringConstraints(pattern=rf"^{FUNCTION_NAME.pattern}$")]
Penalty = Annotated[float | None, Field(ge=-2, le=2)]
ShortText = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
Tokens = Annotated[int | None, Field(ge=1)]
# Checked where they are read, so that an error names the item and not a branch of a union.
Items = Annotated[Any, WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}]})]
ToolChoice = Annotated[Any, WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "object"}]})]


class WireModel(BaseModel):
    """Unknown fields are ignored, and null means: not given."""

    model_config = ConfigDict(extra="ignore", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        return {name: value for name, value in fields.items() if value is not None}


class TextFormat(WireModel):
    type: Literal["text", "json_object", "json_schema"] = "text"
    name: FormatName | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None
    description: str | None = None

    @model_validator(mode="after")
    def _has_its_schema(self) -> Self:
        if self.type == "json_schema" and (self.schema_ is None or not self.name):
            raise BadRequest("A json_schema format needs a name and a schema.", param="text.format.schema")
        return self


class TextConfig(WireModel):
    format: TextFormat = TextFormat()
    verbosity: Literal["low", "medium", "high"] | None = None


class ReasoningConfig(WireModel):
    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None


class ResponseCreate(WireModel):
    # what to answer
    model: Annotated[str, StringConstraints(min_length=1, max_length=512)]
    input: Items = None
    messages: Items = None
    instructions: str | None = None
    previous_response_id: Name | None = None

    # how to answer
    max_output_tokens: Tokens = None
    max_tokens: Tokens = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=-1)
    min_p: float | None = Field(default=None, ge=0, le=1)
    presence_penalty: Penalty = None
    frequency_penalty: Penalty = None
    repetition_penalty: float | None = Field(default=None, gt=0, le=2)
    seed: int | None = Field(default=None, ge=-(2**63), le=2**63 - 1)
    stop: ShortText | Annotated[list[ShortText], Field(max_length=16)] | None = None
    n: int = Field(default=1, ge=1, le=MAX_SAMPLES)
    best_of: int | None = Field(default=None, ge=1, le=MAX_SAMPLES)
    text: TextConfig = TextConfig()
    reasoning: ReasoningConfig = ReasoningConfig()
    thinking_mode: str | None = None
    thinking_budget: TokenBudget = None
    thinking_token_budget: TokenBudget = None
    chat_template_kwargs: dict[str, Any] = {}
    top_logprobs: int = Field(default=0, ge=0, le=20)
    include: list[Includable] = []
    truncation: Literal["auto", "disabled"] = "disabled"

    # tools
    tools: list[dict[str, Any]] = Field(default=[], max_length=MAX_TOOLS)
    tool_choice: ToolChoice = "auto"
    parallel_tool_calls: bool = True
    max_tool_calls: Tokens = None

    # what becomes of it
    stream: bool = False
    background: bool = False
    store: bool = True
    metadata: dict[Key, Value] = Field(default={}, max_length=16)
    user: Name | None = None
    safety_identifier: Name | None = None
    prompt_cache_key: Name | None = None
    gpu_preference: str | None = None
    extra_headers: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _with_extra_body(cls, fields: Any) -> Any:
        """Some clients send `extra_body` as it stands: its fields belong beside it."""
        extra = fields.get("extra_body") if isinstance(fields, dict) else None
        return {**extra, **fields} if isinstance(extra, dict) else fields

    @model_validator(mode="before")
    @classmethod
    def _without_what_is_not_here(cls, fields: Any) -> Any:
        for name in ("conversation", "prompt"):
            if isinstance(fields, dict) and fields.get(name) is not None:
                raise UnsupportedInput(f"{name} is not supported; send input.", param=name)
        return fields

    @model_validator(mode="after")
    def _best_of_at_least_n(self) -> Self:
        if self.best_of is not None and self.best_of < self.n:
            raise BadRequest("best_of must be at least n.", param="best_of")
        return self

    @model_validator(mode="after")
    def _is_stored_in_the_background(self) -> Self:
        if self.background and not self.store:
            raise BadRequest("background needs store: its answer is fetched from there.", param="background")
        return self

    @property
    def asked_in(self) -> Literal["input", "messages"]:
        """The field that holds what is asked."""
        return "input" if self.input is not None else "messages"

    @property
    def n_samples(self) -> int:
        """How many answers the engine makes, of which `n` are kept."""
        return max(self.n, self.best_of or 1)

    @property
    def wants_logprobs(self) -> bool:
        return self.top_logprobs > 0 or LOGPROBS in self.include

    @property
    def wants_reasoning_sealed(self) -> bool:
        return SEALED_REASONING in self.include

    @property
    def token_limit(self) -> int | None:
        return self.max_output_tokens or self.max_tokens
