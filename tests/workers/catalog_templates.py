"""The chat templates of the catalog's families, written anew to render what the published ones do; small tokenizers.

Left out is what no training row reaches: images, built-in tools, the wording of long default prompts.
"""

from dataclasses import dataclass

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

CALL = '{"name": "get_weather", "arguments": {"city": "Paris"}}'
HERMES = f"<tool_call>\n{CALL}\n</tool_call>"

# ChatML

CHATML_TOOLS = """
{%- macro header(default) -%}
    {%- set system = messages[0].content if messages[0].role == 'system' else default -%}
    {%- if tools -%}
        {{- '<|im_start|>system\n' + (system + '\n\n' if system else '') + '# Tools\n<tools>' -}}
        {%- for tool in tools -%}{{- '\n' + tool | tojson -}}{%- endfor -%}
        {{- '\n</tools><|im_end|>\n' -}}
    {%- elif system -%}
        {{- '<|im_start|>system\n' + system + '<|im_end|>\n' -}}
    {%- endif -%}
{%- endmacro -%}
{%- macro call(tool_call) -%}
    {{- '<tool_call>\n{"name": "' + tool_call.function.name + '", "arguments": ' -}}
    {{- tool_call.function.arguments | tojson + '}\n</tool_call>' -}}
{%- endmacro -%}
{%- macro result(message, loop) -%}
    {{- '<|im_start|>user' if loop.first or loop.previtem.role != 'tool' -}}
    {{- '\n<tool_response>\n' + message.content + '\n</tool_response>' -}}
    {{- '<|im_end|>\n' if loop.last or loop.nextitem.role != 'tool' -}}
{%- endmacro -%}
"""
QWEN25 = (
    CHATML_TOOLS
    + """{{- header('You are Qwen, created by Alibaba Cloud. You are a helpful assistant.') -}}
{%- for m in messages -%}
    {%- if m.role == 'assistant' and m.tool_calls -%}
        {{- '<|im_start|>assistant' + ('\n' + m.content if m.content else '') -}}
        {%- for tool_call in m.tool_calls -%}{{- '\n' + call(tool_call) -}}{%- endfor -%}
        {{- '<|im_end|>\n' -}}
    {%- elif m.role == 'tool' -%}{{- result(m, loop) -}}
    {%- elif not (m.role == 'system' and loop.first) -%}
        {{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"""
)
# Earlier answers lose their thoughts, and the prompt begins the next one.
QWQ = (
    QWEN25.replace("'You are Qwen, created by Alibaba Cloud. You are a helpful assistant.'", "''")
    .replace(
        "{%- for m in messages -%}",
        "{%- for m in messages -%}{%- set said = m.content if loop.last else "
        "m.content.split('</think>')[-1].lstrip('\n') -%}",
    )
    .replace("'\n' + m.content if m.content", "'\n' + said if m.content")
    .replace("+ m.role + '\n' + m.content", "+ m.role + '\n' + (said if m.role == 'assistant' else m.content)")
    .replace("'<|im_start|>assistant\n' -}}{%- endif", "'<|im_start|>assistant\n<think>\n' -}}{%- endif")
)
QWEN3_ANSWERS = """{{- header('') -}}
{%- set ns = namespace(asked=-1) -%}
{%- for m in messages if m.role == 'user' -%}{%- set ns.asked = messages.index(m) -%}{%- endfor -%}
{%- for m in messages -%}
    {%- if m.role == 'assistant' -%}
        {%- set thought, said = '', m.content -%}
        {%- if m.reasoning_content is string -%}{%- set thought = m.reasoning_content -%}
        {%- elif '</think>' in said -%}
            {%- set thought = said.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') -%}
            {%- set said = said.split('</think>')[-1].lstrip('\n') -%}
        {%- endif -%}
        {{- '<|im_start|>assistant\n' -}}
        {%- if loop.index0 > ns.asked and (loop.last or thought) and THINKS -%}
            {{- '<think>\n' + thought.strip('\n') + '\n</think>\n\n' + said.lstrip('\n') -}}
        {%- else -%}{{- said -}}{%- endif -%}
        {%- for tool_call in m.tool_calls or [] -%}
            {{- ('\n' if said or not loop.first else '') + call(tool_call) -}}
        {%- endfor -%}
        {{- '<|im_end|>\n' -}}
    {%- elif m.role == 'tool' -%}{{- result(m, loop) -}}
    {%- elif not (m.role == 'system' and loop.first) -%}
        {{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}
    {%- if enable_thinking is defined and not enable_thinking -%}{{- '<think>\n\n</think>\n\n' -}}{%- endif -%}
{%- endif -%}"""
QWEN3 = CHATML_TOOLS + QWEN3_ANSWERS.replace("THINKS", "true")
QWEN3_INSTRUCT = CHATML_TOOLS + QWEN3_ANSWERS.replace("THINKS", "false")
QWEN3_THINKING = QWEN3.replace(
    "add_generation_prompt -%}{{- '<|im_start|>assistant\n'",
    "add_generation_prompt -%}{{- '<|im_start|>assistant\n<think>\n'",
)
SMOLLM2 = """{%- for m in messages -%}
    {%- if loop.first and m.role != 'system' -%}{{- '<|im_start|>system\nYou are SmolLM<|im_end|>\n' -}}{%- endif -%}
    {{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"""
# Its own marks take in the role as well, which is the prompt's.
SMOLLM3 = """{%- set system = messages[0].content if messages[0].role == 'system' else '' -%}
{%- set mode = '/no_think' if '/no_think' in system else '/think' -%}
{{- '<|im_start|>system\n## Metadata\n\nReasoning Mode: ' + mode + '\n\n## Custom Instructions\n\n' -}}
{{- (system.replace('/no_think', '').rstrip() or 'You are SmolLM.') + '\n\n' -}}
{%- for tool in tools or [] -%}{{- tool | tojson + '\n' -}}{%- endfor -%}
{{- '<|im_end|>\n' -}}
{%- for m in messages -%}
    {%- if m.role == 'assistant' -%}
        {%- generation -%}
        {{- '<|im_start|>assistant\n' + ('<think>\n\n</think>\n' if mode == '/no_think' else '') -}}
        {{- m.content.lstrip('\n') + '<|im_end|>\n' -}}
        {%- endgeneration -%}
    {%- elif m.role in ('user', 'tool') -%}{{- '<|im_start|>user\n' + m.content + '<|im_end|>\n' -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\n' + ('<think>\n\n</think>\n' if mode == '/no_think' else '') -}}
{%- endif -%}"""
PHI4 = """{%- for m in messages -%}
    {{- '<|im_start|>' + m.role + '<|im_sep|>' + m.content + '<|im_end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant<|im_sep|>' -}}{%- endif -%}"""

# others

# The end-of-text is shown behind the last message alone.
PHI4_MINI = """{%- for m in messages -%}
    {{- '<|' + m.role + '|>' + m.content + ('<|tool|>' + m.tools + '<|/tool|>' if m.tools else '') + '<|end|>' -}}
{%- endfor -%}
{{- '<|assistant|>' if add_generation_prompt else eos_token -}}"""
# Tools stand in the first user message; a message with a call shows nothing but the call.
LLAMA3 = """{{- bos_token -}}
{%- set system = messages[0].content | trim if messages[0].role == 'system' else '' -%}
{%- set shown = messages[1:] if messages[0].role == 'system' else messages -%}
{{- '<|start_header_id|>system<|end_header_id|>\n\n' + ('Environment: ipython\n' if tools is not none else '') -}}
{{- 'Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n' + system + '<|eot_id|>' -}}
{%- if tools is not none -%}
    {{- '<|start_header_id|>user<|end_header_id|>\n\nGiven the following functions, respond with JSON.\n\n' -}}
    {%- for tool in tools -%}{{- tool | tojson(indent=4) + '\n\n' -}}{%- endfor -%}
    {{- shown[0].content | trim + '<|eot_id|>' -}}
    {%- set shown = shown[1:] -%}
{%- endif -%}
{%- for m in shown -%}
    {%- if 'tool_calls' in m -%}
        {%- if m.tool_calls | length != 1 -%}{{- raise_exception('only single tool-calls at once') -}}{%- endif -%}
        {{- '<|start_header_id|>assistant<|end_header_id|>\n\n{"name": "' + m.tool_calls[0].function.name -}}
        {{- '", "parameters": ' + m.tool_calls[0].function.arguments | tojson + '}<|eot_id|>' -}}
    {%- elif m.role == 'tool' -%}
        {{- '<|start_header_id|>ipython<|end_header_id|>\n\n' + m.content | tojson + '<|eot_id|>' -}}
    {%- else -%}
        {{- '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' -}}{%- endif -%}"""
# Tools stand before the last question, and the system's words in it, if nothing has come after it.
MISTRAL = """{%- set shown = messages[1:] if messages[0].role == 'system' else messages -%}
{%- set questions = shown | selectattr('role', 'equalto', 'user') | list -%}
{{- bos_token -}}
{%- for m in shown -%}
    {%- if m.role == 'user' -%}
        {%- if tools is not none and m == questions[-1] -%}
            {{- '[AVAILABLE_TOOLS]_' + tools | tojson + '[/AVAILABLE_TOOLS]' -}}
        {%- endif -%}
        {{- '[INST]_' + (messages[0].content + '\n\n' if loop.last and messages[0].role == 'system' else '') -}}
        {{- m.content + '[/INST]' -}}
    {%- elif m.tool_calls is defined and m.tool_calls is not none -%}
        {{- '[TOOL_CALLS]_[' -}}
        {%- for tool_call in m.tool_calls -%}
            {%- if tool_call.id is not defined or tool_call.id | length != 9 -%}
                {{- raise_exception('Tool call IDs should be alphanumeric strings with length 9!') -}}
            {%- endif -%}
            {{- (tool_call.function | tojson)[:-1] + ', "id": "' + tool_call.id + '"}' -}}
            {{- ']' if loop.last else ', ' -}}
        {%- endfor -%}
        {{- eos_token -}}
    {%- elif m.role == 'assistant' -%}{{- '_' + m.content + eos_token -}}
    {%- elif m.role == 'tool' -%}{{- '[TOOL_RESULTS]_{"content": ' + m.content + '}[/TOOL_RESULTS]' -}}
    {%- endif -%}
{%- endfor -%}"""
MISTRAL_SMALL = """{{- bos_token + '[SYSTEM_PROMPT]' -}}
{{- (messages[0].content if messages[0].role == 'system' else 'You are Mistral Small 3.') + '[/SYSTEM_PROMPT]' -}}
{%- for m in messages -%}
    {%- if m.role == 'user' -%}{{- '[INST]' + m.content + '[/INST]' -}}
    {%- elif m.role == 'assistant' -%}{{- m.content + eos_token -}}
    {%- elif not loop.first -%}{{- raise_exception('Only user, system and assistant roles are supported!') -}}
    {%- endif -%}
{%- endfor -%}"""
GEMMA3 = """{{- bos_token -}}
{%- set first = messages[0].content + '\n\n' if messages[0].role == 'system' else '' -%}
{%- for m in (messages[1:] if messages[0].role == 'system' else messages) -%}
    {%- if (m.role == 'user') != (loop.index0 % 2 == 0) -%}
        {{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') -}}
    {%- endif -%}
    {{- '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' + (first if loop.first else '') -}}
    {{- m.content | trim + '<end_of_turn>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<start_of_turn>model\n' -}}{%- endif -%}"""
# Every prompt begins a thought, and no answer shows its own.
DEEPSEEK_R1 = """{%- set ns = namespace(system='') -%}
{%- for m in messages if m.role == 'system' -%}{%- set ns.system = m.content -%}{%- endfor -%}
{{- bos_token + ns.system -}}
{%- for m in messages -%}
    {%- if m.role == 'user' -%}{{- '<｜User｜>' + m.content -}}{%- endif -%}
    {%- if m.role == 'assistant' and m.tool_calls -%}
        {%- for tool in m.tool_calls -%}
            {{- '<｜Assistant｜><｜tool▁calls▁begin｜>' + tool.function.name + tool.function.arguments -}}
        {%- endfor -%}
    {%- endif -%}
    {%- if m.role == 'assistant' and m.content is not none -%}
        {{- '<｜Assistant｜>' + m.content.split('</think>')[-1] + '<｜end▁of▁sentence｜>' -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<｜Assistant｜><think>\n' -}}{%- endif -%}"""


@dataclass(frozen=True)
class Family:
    """`says`, `thinks` and `calls` are what the model has to write: {} is the answer, {thought} the thought."""

    template: str
    models: tuple[str, ...]  # how their ids in the catalog begin
    says: str
    calls: str | None  # None: the template cannot show a call, so the row is refused
    thinks: str | None = None  # None: as `says`, with the thought as part of the answer
    rewrites: bool = False  # earlier answers, so that each is learned apart
    bos: str = ""
    eos: str = "<|im_end|>"
    stops: tuple[str, ...] = ()  # of generation_config.json
    special: tuple[str, ...] = ("<|im_start|>", "<|endoftext|>")
    blank_first: bool = False  # the tokenizer puts a blank before the first word


SAID = "{}<|im_end|>"
EMPTY_THOUGHT, THOUGHT = "<think>\n\n</think>\n\n", "<think>\n{thought}\n</think>\n\n"
REST_OF_EMPTY, REST = "\n</think>\n\n", "{thought}\n</think>\n\n"
MISTRAL_CALL = CALL[:-1] + ', "id": "call00001"}'
MISTRAL_SPECIAL = ("[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_CALLS]", "[TOOL_RESULTS]")
FAMILIES = {
    "qwen2.5": Family(QWEN25, ("Qwen/Qwen2.5-",), SAID, HERMES + "<|im_end|>", stops=("<|endoftext|>",)),
    "qwq": Family(
        QWQ, ("Qwen/QwQ-",), REST_OF_EMPTY + SAID, REST_OF_EMPTY + HERMES + "<|im_end|>", REST + SAID, rewrites=True
    ),
    "qwen3": Family(
        QWEN3,
        ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-1.7B", "Qwen/Qwen3-4B", "Qwen/Qwen3-8B", "Qwen/Qwen3-14B", "Qwen/Qwen3-32B"),
        EMPTY_THOUGHT + SAID,
        EMPTY_THOUGHT + HERMES + "<|im_end|>",
        THOUGHT + SAID,
        rewrites=True,
    ),
    "qwen3 instruct": Family(QWEN3_INSTRUCT, ("Qwen/Qwen3-4B-Instruct-2507",), SAID, HERMES + "<|im_end|>", SAID),
    "qwen3 thinking": Family(
        QWEN3_THINKING,
        ("Qwen/Qwen3-4B-Thinking-2507",),
        REST_OF_EMPTY + SAID,
        REST_OF_EMPTY + HERMES + "<|im_end|>",
        REST + SAID,
        rewrites=True,
    ),
    "smollm2": Family(SMOLLM2, ("HuggingFaceTB/SmolLM2-",), SAID, None),
    "smollm3": Family(SMOLLM3, ("HuggingFaceTB/SmolLM3-",), SAID, None),
    "phi-4": Family(PHI4, ("microsoft/phi-4",), SAID, None, special=("<|im_start|>", "<|im_sep|>")),
    "phi-4-mini": Family(
        PHI4_MINI,
        ("microsoft/Phi-4-mini",),
        "{}<|end|>",
        None,
        eos="<|endoftext|>",
        stops=("<|end|>", "<|endoftext|>"),
        special=("<|user|>", "<|assistant|>", "<|system|>", "<|end|>"),
    ),
    "llama3": Family(
        LLAMA3,
        ("meta-llama/",),
        "{}<|eot_id|>",
        CALL.replace("arguments", "parameters") + "<|eot_id|>",
        bos="<|begin_of_text|>",
        eos="<|eot_id|>",
        special=("<|start_header_id|>", "<|end_header_id|>"),
    ),
    "mistral 7b": Family(
        MISTRAL.replace("]_", "] ").replace("'_'", "' '"),
        ("mistralai/Mistral-7B-",),
        " {}</s>",
        f"[TOOL_CALLS] [{MISTRAL_CALL}]</s>",
        bos="<s>",
        eos="</s>",
        special=MISTRAL_SPECIAL,
        blank_first=True,
    ),
    "mistral nemo": Family(
        MISTRAL.replace("]_", "]").replace("'_' + ", ""),
        ("mistralai/Mistral-Nemo-",),
        "{}</s>",
        f"[TOOL_CALLS][{MISTRAL_CALL}]</s>",
        bos="<s>",
        eos="</s>",
        special=MISTRAL_SPECIAL,
    ),
    "mistral small": Family(
        MISTRAL_SMALL,
        ("mistralai/Mistral-Small-",),
        "{}</s>",
        None,
        bos="<s>",
        eos="</s>",
        special=("[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
    ),
    "gemma3": Family(
        GEMMA3,
        ("google/gemma-3-",),
        "{}<end_of_turn>",
        None,
        bos="<bos>",
        eos="<eos>",
        stops=("<eos>", "<end_of_turn>"),
        special=("<start_of_turn>", "<end_of_turn>"),
    ),
    "deepseek r1": Family(
        DEEPSEEK_R1,
        ("deepseek-ai/DeepSeek-R1-Distill-",),
        REST_OF_EMPTY + "{}<｜end▁of▁sentence｜>",
        None,
        REST + "{}<｜end▁of▁sentence｜>",
        rewrites=True,
        bos="<｜begin▁of▁sentence｜>",
        eos="<｜end▁of▁sentence｜>",
        special=("<｜User｜>", "<｜Assistant｜>"),
    ),
}


def make_tokenizer(family: Family) -> PreTrainedTokenizerBase:
    """Bytes, the family's control tokens, and thoughts as tokens that a model may write."""
    bare = _with_blank_first() if family.blank_first else _byte_level()
    special = dict.fromkeys(filter(None, (family.bos, family.eos, *family.stops, *family.special)))
    bare.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    bare.add_tokens([AddedToken(mark, normalized=False) for mark in ("<think>", "</think>")])
    return PreTrainedTokenizerFast(
        tokenizer_object=bare,
        bos_token=family.bos or None,
        eos_token=family.eos,
        chat_template=family.template,
        clean_up_tokenization_spaces=False,
    )


def _byte_level() -> Tokenizer:
    bare = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(pre_tokenizers.ByteLevel.alphabet())}, merges=[]))
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bare.decoder = decoders.ByteLevel()
    return bare


def _with_blank_first() -> Tokenizer:
    """As SentencePiece's: a blank is a letter of its own, and the first word of a text is given one."""
    letters = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    vocab = {letter: i for i, letter in enumerate(letters)}
    bare = Tokenizer(models.BPE(vocab=vocab, merges=[], byte_fallback=True, unk_token="<unk>"))
    bare.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    bare.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return bare
