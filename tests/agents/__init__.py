"""The real coding agents, from npm, through the proxy, on a server that plays a model by a script.

`python -m pytest -q -m agents tests/agents` installs them into `.cache` and runs them; docs/agents.md
says what they were seen doing.
"""
