"""Makes a language model of nothing: random weights and a small vocabulary, in one GGUF file.

Run by the engine's own Python, which has `gguf` and numpy: `python tiny.py FILE`.

It talks rubbish, and that is enough: the engine reads prompts through a real tokenizer and a real chat
template, follows grammars, counts tokens and stops when told to, as it does with any model. The first
component of every state is the same, so that one column of the last matrix says how likely each
token is: one printable character of ASCII, mostly; the end of the turn now and then; bytes beyond ASCII
never, since the engine would have to mend them. What is longer it reads, but does not say.
"""

from __future__ import annotations

import sys

import gguf
import numpy as np
from merges import learnt, letters, texts

LAYERS, WIDTH, HEADS, INNER, CONTEXT = 1, 64, 2, 128, 262_144
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CALLS = "<tool_call>"  # one token, so that a model of nothing comes upon it
TEMPLATE = """
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{% endif %}
    {{- '# Tools\\n\\n<tools>' }}
    {%- for tool in tools %}{{- '\\n' }}{{- tool | tojson }}{% endfor %}
    {{- '\\n</tools>\\n\\nTo call one, write <tool_call>{"name": <name>, "arguments": <object>}' }}
    {{- '</tool_call>' }}
    {{- '<|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'system' %}
        {%- if not loop.first %}{{- raise_exception('a system message comes first') }}{% endif %}
    {%- elif message.role == 'tool' %}
        {{- '<|im_start|>user\\n<tool_response>\\n' + message.content }}
        {{- '\\n</tool_response><|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' }}
        {%- if message.content %}{{- message.content }}{% endif %}
        {%- for call in message.tool_calls or [] %}
            {{- '\\n<tool_call>{"name": "' + call.function.name + '", "arguments": ' }}
            {{- call.function.arguments | tojson }}
            {{- '}</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}"""
"""As Qwen has it: strict about system messages, and in a form of calls that the engine knows."""


def likely(token: str) -> float:
    """How likely a token is, as the logarithm of its odds."""
    if token in ("<|im_end|>", CALLS):
        return 1.0
    return 0.0 if len(token) == 1 and (token == "\u0120" or "!" <= token <= "~") else -60.0


def write(path: str) -> None:
    merges = learnt(texts())
    tokens = [*letters(), *dict.fromkeys(a + b for a, b in merges), CALLS, *SPECIAL]
    special = len(tokens) - len(SPECIAL)
    out = gguf.GGUFWriter(path, "llama")
    out.add_context_length(CONTEXT)
    out.add_embedding_length(WIDTH)
    out.add_block_count(LAYERS)
    out.add_feed_forward_length(INNER)
    out.add_head_count(HEADS)
    out.add_head_count_kv(HEADS)
    out.add_rope_dimension_count(WIDTH // HEADS)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_vocab_size(len(tokens))
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("default")
    out.add_token_list(tokens)
    kinds = [gguf.TokenType.NORMAL] * (special - 1) + [gguf.TokenType.USER_DEFINED]
    out.add_token_types([*kinds, *[gguf.TokenType.CONTROL] * len(SPECIAL)])
    out.add_token_merges([f"{a} {b}" for a, b in merges])
    out.add_bos_token_id(special)
    out.add_eos_token_id(special + 2)
    out.add_add_bos_token(False)
    out.add_chat_template(TEMPLATE.strip("\n"))
    random = np.random.default_rng(7)

    def matrix(rows: int, columns: int) -> np.ndarray:
        return (random.standard_normal((rows, columns)) * 0.02).astype(np.float32)

    embedding = matrix(len(tokens), WIDTH)
    embedding[:, 0] = 4.0
    last = matrix(len(tokens), WIDTH) * 20
    last[:, 0] = [likely(token) / WIDTH**0.5 for token in tokens]
    out.add_tensor("token_embd.weight", embedding)
    out.add_tensor("output.weight", last.astype(np.float32))
    out.add_tensor("output_norm.weight", np.ones(WIDTH, dtype=np.float32))
    for n in range(LAYERS):
        for name in ("attn_norm", "ffn_norm"):
            out.add_tensor(f"blk.{n}.{name}.weight", np.ones(WIDTH, dtype=np.float32))
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            out.add_tensor(f"blk.{n}.{name}.weight", matrix(WIDTH, WIDTH))
        out.add_tensor(f"blk.{n}.ffn_gate.weight", matrix(INNER, WIDTH))
        out.add_tensor(f"blk.{n}.ffn_up.weight", matrix(INNER, WIDTH))
        out.add_tensor(f"blk.{n}.ffn_down.weight", matrix(WIDTH, INNER))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


if __name__ == "__main__":
    write(sys.argv[1])
