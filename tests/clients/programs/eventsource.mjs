// npm's eventsource: a browser's EventSource, which can POST by a fetch of one's own.
import { EventSource } from "eventsource";
import { answerAll, call, KEY, PROMPT, TOOL } from "./asking.mjs";

const bodies = {
  chat: {
    path: "/v1/chat/completions",
    body: { messages: PROMPT, tools: [{ type: "function", function: TOOL }] },
  },
  responses: {
    path: "/v1/responses",
    body: { input: "Count.", tools: [{ type: "function", strict: false, ...TOOL }] },
  },
  messages: {
    path: "/v1/messages",
    body: {
      max_tokens: 99,
      messages: PROMPT,
      tools: [{ name: TOOL.name, input_schema: TOOL.parameters }],
    },
  },
};
const NAMED = {
  responses: ["created", "output_text.delta", "output_item.done", "completed", "failed"].map(
    (name) => `response.${name}`,
  ),
  messages: ["message_start", "content_block_start", "content_block_delta", "content_block_stop"]
    .concat(["message_delta", "message_stop"]),
};

// Each takes one event's data and says true at the end of the answer.
const takers = {
  chat(data, seen, kept) {
    if (data === "[DONE]") {
      if (seen.finish === "tool_calls") seen.calls.push(call(kept.name, kept.input));
      return true;
    }
    const chunk = JSON.parse(data);
    if (chunk.error) throw new FrameError(chunk.error.message);
    seen.name(chunk.id);
    if (chunk.usage) seen.usage = [chunk.usage.prompt_tokens, chunk.usage.completion_tokens];
    for (const { delta, finish_reason } of chunk.choices) {
      seen.say(delta.content);
      for (const { function: f } of delta.tool_calls ?? []) {
        kept.name = f.name ?? kept.name;
        kept.input = (kept.input ?? "") + f.arguments;
      }
      seen.finish ??= finish_reason;
    }
  },
  responses(data, seen) {
    const event = JSON.parse(data);
    if (event.response) seen.name(event.response.id);
    if (event.type === "response.output_text.delta") seen.say(event.delta);
    if (event.type === "response.failed") throw new FrameError(event.response.error.message);
    if (event.item?.type === "function_call") {
      seen.calls.push(call(event.item.name, event.item.arguments));
    }
    if (event.type !== "response.completed") return;
    seen.finish = event.response.status;
    seen.usage = [event.response.usage.input_tokens, event.response.usage.output_tokens];
    return true;
  },
  messages(data, seen, kept) {
    const event = JSON.parse(data);
    if (event.message) {
      seen.name(event.message.id);
      kept.usage = event.message.usage;
    }
    if (event.content_block?.type === "tool_use") kept.name = event.content_block.name;
    if (event.delta?.text) seen.say(event.delta.text);
    if (event.delta?.partial_json) kept.input = (kept.input ?? "") + event.delta.partial_json;
    if (event.type === "content_block_stop" && kept.input) {
      seen.calls.push(call(kept.name, kept.input));
    }
    if (event.delta?.stop_reason) {
      kept.stop = event.delta.stop_reason;
      kept.usage = { ...kept.usage, ...event.usage };
    }
    if (event.type !== "message_stop") return;
    seen.finish = kept.stop;
    seen.usage = [kept.usage.input_tokens, kept.usage.output_tokens];
    return true;
  },
};

class FrameError extends Error {}
class ConnectionError extends Error {}

function asking(way, { model, stream, headers }) {
  const { body } = bodies[way];
  return {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${KEY}`, ...headers },
    body: JSON.stringify({ model, stream, ...body }),
  };
}

function read(way, url, init, seen, signal, again = false) {
  const kept = {};
  return new Promise((resolve, reject) => {
    const source = new EventSource(url, {
      fetch: (target, given) =>
        fetch(target, { ...given, ...init, headers: { ...given.headers, ...init.headers } }),
    });
    const over = (settle, value) => {
      source.close(); // else it connects, and asks, again
      settle(value);
    };
    const take = ({ data }) => {
      try {
        if (takers[way](data, seen, kept)) over(resolve);
      } catch (error) {
        over(reject, error);
      }
    };
    for (const name of ["message", ...(NAMED[way] ?? [])]) source.addEventListener(name, take);
    source.addEventListener("error", (event) => {
      // An event that the server named `error` comes here too; only it has data.
      if (again && source.readyState === EventSource.CONNECTING) return;
      const told = event.data !== undefined && new FrameError(JSON.parse(event.data).error.message);
      const error = told || new ConnectionError(event.message ?? "the stream ended");
      if (event.code) error.status = event.code;
      over(reject, error);
    });
    signal.addEventListener("abort", () => over(reject, new DOMException("left", "AbortError")));
  });
}

const ways = {};
for (const way of Object.keys(bodies)) {
  ways[way] = (question, seen, { signal }) =>
    read(way, question.url + bodies[way].path, asking(way, question), seen, signal);
}
// What an EventSource is made for: GET. The scripted upstream learns of the scenario by a header.
const get = (again) => ({ url, model }, seen, { signal }) =>
  read("chat", `${url}/v1/events`, { headers: { "x-scenario": model } }, seen, signal, again);
ways.get = get(false);
ways["get again"] = get(true);
await answerAll(ways);
