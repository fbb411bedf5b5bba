"""A model of 320 numbers a token for a real llama.cpp server: it says exactly what it is made to say.

There is no attention in it (all zeros): the last token alone decides the next one. The chat template ends a prompt
with `<|call|>` if there are tools and no result yet, else with `<|final|>`; from there one token leads to the next. So
a real server, with its real tokenizer, template, sampler and parser, carries out a real round of a tool call.
"""

from __future__ import annotations

import array
import json
import struct
from pathlib import Path
from typing import Any

WIDTH = 320
HEADS = 5
INNER = 32
CONTEXT = 65_536
_SPECIAL = ["<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|call|>", "<|final|>"]
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6

TEMPLATE = """
{%- if tools %}<|system|># Tools

You may call one or more functions. You are provided with function signatures within <tools></tools> XML tags:
<tools>
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call>
{% endif %}
{%- for message in messages %}
{%- if message.role == 'tool' %}<|tool|><tool_response>
{{ message.content }}
</tool_response>
{%- elif message.role == 'assistant' %}<|assistant|>{{ message.content or '' }}
{%- for call in message.tool_calls or [] %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{%- endfor %}
{%- elif message.role == 'system' %}<|system|>{{ message.content }}
{%- else %}<|user|>{{ message.content }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{%- if tools and messages[-1].role != 'tool' %}<|call|>{% else %}<|final|>{% endif %}
{%- endif %}
"""


def write_model(path: Path, tool: str, arguments: dict[str, Any], final: str) -> None:
    """A GGUF file whose model calls `tool` with `arguments`, and once it has the result says `final`."""
    call = f"<tool_call>\n{json.dumps({'name': tool, 'arguments': arguments})}\n</tool_call>"
    first, last = _pieces(call), _pieces(final)
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *_SPECIAL, *first, *last]
    assert len(tokens) <= WIDTH, "say less"
    kinds = [_UNKNOWN, _CONTROL, _CONTROL, *([_BYTE] * 256), *([_CONTROL] * len(_SPECIAL))]
    kinds += [_NORMAL] * (len(tokens) - len(kinds))
    start = len(tokens) - len(first) - len(last)
    after = dict.fromkeys(range(len(tokens)), 2)  # the end
    for marker, at, chain in (("<|call|>", start, first), ("<|final|>", start + len(first), last)):
        after[tokens.index(marker)] = at
        after |= {at + i: at + i + 1 for i in range(len(chain) - 1)}
    values = {
        "general.architecture": "llama",
        "general.name": "tiny",
        "llama.context_length": CONTEXT,
        "llama.embedding_length": WIDTH,
        "llama.block_count": 1,
        "llama.feed_forward_length": INNER,
        "llama.attention.head_count": HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": WIDTH // HEADS,
        "llama.vocab_size": len(tokens),
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [token.replace(" ", "\u2581") for token in tokens],
        "tokenizer.ggml.scores": [0.0 if kind != _NORMAL else -1e6 for kind in kinds],
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_space_prefix": False,
        "tokenizer.chat_template": TEMPLATE,
    }
    count = len(tokens)
    same = {(token, token): 1.0 for token in range(count)}
    next_one = dict.fromkeys(after.items(), 3.0)
    block = "blk.0."
    tensors: list[tuple[str, tuple[int, ...], array.array[float]]] = [
        ("token_embd.weight", (WIDTH, count), _matrix(WIDTH, count, same)),
        ("output_norm.weight", (WIDTH,), array.array("f", [1.0] * WIDTH)),
        ("output.weight", (WIDTH, count), _matrix(WIDTH, count, next_one)),
        (block + "attn_norm.weight", (WIDTH,), array.array("f", [1.0] * WIDTH)),
        (block + "ffn_norm.weight", (WIDTH,), array.array("f", [1.0] * WIDTH)),
        *(
            (f"{block}{name}.weight", shape, _matrix(*shape, {}))
            for name, shape in (
                ("attn_q", (WIDTH, WIDTH)),
                ("attn_k", (WIDTH, WIDTH)),
                ("attn_v", (WIDTH, WIDTH)),
                ("attn_output", (WIDTH, WIDTH)),
                ("ffn_gate", (WIDTH, INNER)),
                ("ffn_up", (WIDTH, INNER)),
                ("ffn_down", (INNER, WIDTH)),
            )
        ),
    ]
    path.write_bytes(_gguf(values, tensors))


def _pieces(text: str) -> list[str]:
    """`text` in pieces of which no two are alike."""
    pieces: list[str] = []
    while text:
        size = 5
        while text[:size] in pieces and size < len(text):
            size += 1
        pieces.append(text[:size])
        text = text[size:]
    return pieces


def _matrix(width: int, rows: int, ones: dict[tuple[int, int], float]) -> array.array[float]:
    """`rows` of `width` numbers, zero but at (column, row)."""
    matrix = array.array("f", bytes(4 * width * rows))
    for (column, row), value in ones.items():
        matrix[row * width + column] = value
    return matrix


def _gguf(values: dict[str, Any], tensors: list[tuple[str, tuple[int, ...], array.array[float]]]) -> bytes:
    """The file format, version 3: header, values, where the tensors are, then the tensors, each at a multiple of 32."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(values))
    for key, value in values.items():
        head += _string(key) + _typed(value)
    data = b""
    for name, shape, numbers in tensors:
        head += _string(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
        head += struct.pack("<IQ", 0, len(data))
        data += numbers.tobytes()
        data += bytes(-len(data) % 32)
    return head + bytes(-len(head) % 32) + data


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _typed(value: Any) -> bytes:
    match value:
        case bool():
            return struct.pack("<I?", 7, value)
        case int():
            return struct.pack("<II", 4, value)
        case float():
            return struct.pack("<If", 6, value)
        case str():
            return struct.pack("<I", 8) + _string(value)
        case [str(), *_]:
            return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(_string(text) for text in value)
        case [float(), *_]:
            return struct.pack(f"<IIQ{len(value)}f", 9, 6, len(value), *value)
        case _:
            return struct.pack(f"<IIQ{len(value)}i", 9, 5, len(value), *value)
