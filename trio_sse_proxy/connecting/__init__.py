"""Settings of coding agents that use this proxy: written down, or written into the agents' own files.

| module | knows |
|---|---|
| `plan` | what an agent needs to know of the proxy |
| `codex` | Codex's `config.toml`, edited without touching what else stands in it |
| `claude_code` | Claude Code's `settings.json` and its variables |
| `files` | replacing a file whole, with a copy of what it was |
| `command` | the command: looks whether the proxy is there, asks, writes |
"""
