# Claude Code's variables, as `trio-sse-proxy connect claude --model my-model` prints them.
export ANTHROPIC_BASE_URL=http://127.0.0.1:8787
export ANTHROPIC_MODEL=my-model
export ANTHROPIC_DEFAULT_OPUS_MODEL=my-model
export ANTHROPIC_DEFAULT_SONNET_MODEL=my-model
export ANTHROPIC_DEFAULT_HAIKU_MODEL=my-model
export API_TIMEOUT_MS=900000
export CLAUDE_CODE_MAX_RETRIES=2
export CLAUDE_STREAM_IDLE_TIMEOUT_MS=300000
export ANTHROPIC_AUTH_TOKEN=any
