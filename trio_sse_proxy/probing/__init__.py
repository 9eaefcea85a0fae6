"""Asking a model server a few small questions, to find out which settings fit it.

| module | knows |
|---|---|
| `reply` | what one question brought, read loosely |
| `asker` | sending questions, within bounds of number, tokens and time |
| `questions` | what is asked, and in which order |
| `findings` | what the answers mean, and which settings follow |
| `told` | how that is written down |
"""
