"""What agents ask: recorded of Codex and Claude Code, with shorter prompts and fewer tools.

The second turn of each has a call of a tool and its output behind it, as its agent writes them down.
"""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

MODEL = "tiny"
LONG = "You are a coding agent. Be precise, safe and helpful. " * 20


def codex(*more: Json, stream: bool = True) -> Json:
    """Codex sends no `instructions`: its prompts are developer messages."""
    return {
        "model": MODEL,
        "input": [
            _said("developer", LONG, "Sandboxing is off."),
            _said("user", "<environment_context>\n  <cwd>/work</cwd>\n</environment_context>"),
            _said("user", "Fix the typo in greeting.txt."),
            *more,
        ],
        "tools": [
            {
                "type": "function",
                "name": "exec_command",
                "description": "Runs a command in a PTY.",
                "strict": False,
                "parameters": {
                    "type": "object",
                    "properties": {
                        "cmd": {"type": "string", "enum": ["ls", "cat greeting.txt"]},
                        "yield_time_ms": {"type": "integer"},
                    },
                    "required": ["cmd"],
                    "additionalProperties": False,
                },
            },
            {
                "type": "custom",
                "name": "apply_patch",
                "description": "Edit files. This is a FREEFORM tool.",
                "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"},
            },
            {
                "type": "namespace",
                "name": "collaboration",
                "description": "Other agents.",
                "tools": [
                    {
                        "type": "function",
                        "name": "list_agents",
                        "parameters": {"type": "object", "properties": {}},
                    }
                ],
            },
            {"type": "web_search", "external_web_access": False},
        ],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "reasoning": {"effort": "medium", "summary": "auto"},
        "store": False,
        "stream": stream,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "019a0000-0000-7000-8000-000000000000",
        "client_metadata": {"x-codex-installation-id": "0"},
    }


CODEX_CALLED: list[Json] = [
    {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": "Look first."}],
        "encrypted_content": "gAAAA-of-another-server",
    },
    {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "output_text", "text": "Reading."}],
    },
    {
        "type": "function_call",
        "name": "exec_command",
        "arguments": '{"cmd":"cat greeting.txt"}',
        "call_id": "call_1",
    },
    {
        "type": "custom_tool_call",
        "status": "completed",
        "call_id": "call_2",
        "name": "apply_patch",
        "input": "*** Begin Patch\n*** End Patch",
    },
    {"type": "function_call_output", "call_id": "call_1", "output": "helo\n"},
    {"type": "custom_tool_call_output", "call_id": "call_2", "output": "Done!"},
]


def _said(role: str, *texts: str) -> Json:
    content = [{"type": "input_text", "text": text} for text in texts]
    return {"type": "message", "role": role, "content": content}


def claude(*more: Json, stream: bool = True) -> Json:
    """Claude Code marks what is to be cached, and speaks as the system between the messages."""
    cached = {"cache_control": {"type": "ephemeral"}}
    return {
        "model": MODEL,
        "max_tokens": 2000,
        "stream": stream,
        "system": [
            {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.197"},
            {"type": "text", "text": LONG, **cached},
        ],
        "thinking": {"type": "adaptive"},
        "output_config": {"effort": "high"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "metadata": {"user_id": '{"device_id":"0","session_id":"0"}'},
        "tools": [
            {
                "name": "Bash",
                "description": "Executes a bash command.",
                "input_schema": {
                    "$schema": "https://json-schema.org/draft/2020-12/schema",
                    "type": "object",
                    "properties": {"command": {"type": "string", "enum": ["ls", "false"]}},
                    "required": ["command"],
                    "additionalProperties": False,
                },
                "eager_input_streaming": True,
            },
            {
                "name": "Read",
                "description": "Reads a file.",
                "input_schema": {
                    "type": "object",
                    "properties": {"lines": {"type": "integer"}},
                    "required": ["lines"],
                    "additionalProperties": False,
                },
            },
        ],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "<system-reminder>Today.</system-reminder>"},
                    {"type": "text", "text": "Fix the typo.", **cached},
                ],
            },
            {"role": "system", "content": "Agents: none"},
            *more,
        ],
    }


CLAUDE_CALLED: list[Json] = [
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "Two probes.", "signature": "of-another-server"},
            {"type": "text", "text": "Trying."},
            {"type": "tool_use", "id": "toolu_a", "name": "Bash", "input": {"command": "false"}},
            {"type": "tool_use", "id": "toolu_b", "name": "Read", "input": {"lines": 3}},
        ],
    },
    {
        "role": "user",
        "content": [
            {
                "type": "tool_result",
                "tool_use_id": "toolu_a",
                "is_error": True,
                "content": "Exit code 1",
            },
            {
                "type": "tool_result",
                "tool_use_id": "toolu_b",
                "content": [{"type": "text", "text": "1 helo"}],
            },
            {"type": "text", "text": "go on"},
        ],
    },
]
