"""What is asked in all the ways that change an answer's shape."""

from typing import Any

Json = dict[str, Any]

THINKER = "Qwen/Qwen3-0.6B"
CITY: Json = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Rome", "Oslo"]}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER: Json = {"name": "get_weather", "description": "The weather in a city", "parameters": CITY}
TOOLS = [{"type": "function", "function": WEATHER}]
FLAT_TOOLS = [{"type": "function", **WEATHER}]
ASKED: Json = {"messages": [{"role": "user", "content": "How is the weather in Rome?"}], "max_tokens": 60}

CHAT: dict[str, Json] = {
    "plain": {},
    "two answers": {"n": 2, "temperature": 1},
    "log-probabilities": {"logprobs": True, "top_logprobs": 2},
    "two with log-probabilities": {"n": 2, "temperature": 1, "logprobs": True},
    "tools to choose from": {"tools": TOOLS},
    "a tool required": {"tools": TOOLS, "tool_choice": "required"},
    "a tool named": {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "get_weather"}}},
    "a tool with log-probabilities": {"tools": TOOLS, "logprobs": True},
    "a JSON object": {"response_format": {"type": "json_object"}},
    "a JSON schema": {"response_format": {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY}}},
    "cut at its length": {"max_tokens": 1},
    "stopped at a word": {"stop": ["e"]},
}
THOUGHTS = {"model": THINKER, "chat_template_kwargs": {"enable_thinking": True}}

CONVERSATION: list[Json] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "input_text", "text": "How is the weather"}]},
    {"role": "assistant", "content": "Where?", "phase": "commentary"},
    {"type": "message", "role": "user", "content": "In Rome."},
    {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Rome."}]},
    {"type": "function_call", "call_id": "call_1", "name": "get_weather", "arguments": '{"city": "Rome"}'},
    {"type": "function_call_output", "call_id": "call_1", "output": "Sunny"},
]
RESPONSES: dict[str, Json] = {
    "plain": {},
    "two answers": {"n": 2, "temperature": 1},
    "the best of two": {"best_of": 2, "temperature": 1},
    "log-probabilities": {"include": ["message.output_text.logprobs"], "top_logprobs": 2},
    "tools to choose from": {"tools": FLAT_TOOLS},
    "a tool required": {"tools": FLAT_TOOLS, "tool_choice": "required"},
    "a tool named": {"tools": FLAT_TOOLS, "tool_choice": {"type": "function", "name": "get_weather"}},
    "tools allowed": {
        "tools": FLAT_TOOLS,
        "tool_choice": {
            "type": "allowed_tools",
            "mode": "auto",
            "tools": [{"type": "function", "name": "get_weather"}],
        },
    },
    "a JSON object": {"text": {"format": {"type": "json_object"}}},
    "a JSON schema": {"text": {"format": {"type": "json_schema", "name": "city", "schema": CITY}}},
    "cut at its length": {"max_output_tokens": 1},
    "a whole conversation": {"input": CONVERSATION, "instructions": "Be kind."},
    "what is only told back": {"user": "u", "safety_identifier": "s", "prompt_cache_key": "k", "metadata": {"a": "b"}},
    "not to be kept": {"store": False},
}


def chat_asked(fields: Json) -> Json:
    return {"model": "loam/demo", **ASKED, **fields}


def response_asked(fields: Json) -> Json:
    return {"model": "loam/demo", "input": "How is the weather in Rome?", "max_output_tokens": 60, **fields}
