// The @anthropic-ai/sdk package: raw events, and the helper that accumulates them.
import Anthropic from "@anthropic-ai/sdk";
import { answerAll, call, KEY, PROMPT, TOOL } from "./asking.mjs";

const TOOLS = [{ name: TOOL.name, description: TOOL.description, input_schema: TOOL.parameters }];

function client({ url, headers }) {
  return new Anthropic({ apiKey: KEY, baseURL: url, maxRetries: 0, defaultHeaders: headers });
}

function asking({ model }) {
  return { model, max_tokens: 99, messages: PROMPT, tools: TOOLS };
}

function takeMessage(seen, message) {
  seen.name(message.id);
  seen.finish = message.stop_reason;
  seen.usage = [message.usage.input_tokens, message.usage.output_tokens];
  for (const block of message.content) {
    if (block.type === "tool_use") seen.calls.push(call(block.name, block.input));
  }
  return message.content.map((block) => block.text ?? "").join("");
}

async function messages(question, seen, { signal }) {
  const { messages } = client(question);
  if (!question.stream) {
    seen.say(takeMessage(seen, await messages.create(asking(question), { signal })));
    return;
  }
  let [open, stop, usage] = [null, null, {}];
  const given = await messages.create({ ...asking(question), stream: true }, { signal });
  for await (const event of given) {
    switch (event.type) {
      case "message_start":
        seen.name(event.message.id);
        usage = event.message.usage;
        break;
      case "content_block_start":
        open = event.content_block.type === "tool_use" && { ...event.content_block, input: "" };
        break;
      case "content_block_delta":
        if (open) open.input += event.delta.partial_json;
        else seen.say(event.delta.text);
        break;
      case "content_block_stop":
        if (open) seen.calls.push(call(open.name, open.input));
        break;
      case "message_delta":
        stop = event.delta.stop_reason;
        usage = { ...usage, ...event.usage };
        break;
      case "message_stop":
        seen.finish = stop;
        seen.usage = [usage.input_tokens, usage.output_tokens];
    }
  }
}

async function messagesHelper(question, seen, { signal }) {
  const stream = client(question).messages.stream(asking(question), { signal });
  stream.on("text", (piece) => seen.say(piece));
  takeMessage(seen, await stream.finalMessage());
}

await answerAll({ messages, "messages helper": messagesHelper });
