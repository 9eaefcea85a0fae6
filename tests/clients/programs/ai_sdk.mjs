// The Vercel AI SDK with each of its providers for these dialects.
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, jsonSchema, streamText, tool } from "ai";
import { answerAll, call, KEY, told, TOOL } from "./asking.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false;

const providers = {
  chat: (settings) => createOpenAI(settings).chat,
  responses: (settings) => createOpenAI(settings).responses,
  messages: (settings) => createAnthropic(settings),
  compatible: (settings) =>
    createOpenAICompatible({ name: "scripted", includeUsage: true, ...settings }),
};
const { name, description, parameters } = TOOL;

function asking(way, { url, headers, model }, seen, { signal }) {
  const provider = providers[way]({ baseURL: `${url}/v1`, apiKey: KEY, headers });
  const execute = (input) => seen.calls.push(call(name, input));
  const tools = { [name]: tool({ description, inputSchema: jsonSchema(parameters), execute }) };
  const prompt = { model: provider(model), prompt: "Count.", tools };
  return { ...prompt, maxRetries: 0, abortSignal: signal, onError: () => {} };
}

async function fullStream(asked, seen) {
  for await (const part of streamText(asked).fullStream) {
    switch (part.type) {
      case "text-delta":
        seen.say(part.text);
        break;
      case "finish-step":
        seen.name(part.response.id);
        break;
      case "finish":
        seen.finish = part.finishReason;
        seen.usage = [part.totalUsage.inputTokens, part.totalUsage.outputTokens];
        break;
      case "error":
        seen.error = told(part.error); // and on: a call may still be run after it
        break;
      case "abort":
        seen.error = { name: "abort", message: "left", status: null };
    }
  }
}

async function whole(asked, seen) {
  const result = await generateText(asked);
  seen.say(result.text);
  seen.name(result.response.id);
  seen.finish = result.finishReason;
  seen.usage = [result.usage.inputTokens, result.usage.outputTokens];
}

// What one gets who reads the text alone, as most examples do: errors go to `onError`.
async function textStream(asked, seen) {
  const onError = ({ error }) => (seen.heard = told(error));
  const result = streamText({ ...asked, onError });
  for await (const piece of result.textStream) seen.say(piece);
  seen.finish = await result.finishReason;
  const usage = await result.usage;
  seen.usage = [usage.inputTokens, usage.outputTokens];
}

const ways = {};
for (const way of Object.keys(providers)) {
  ways[way] = (question, seen, leaving) =>
    (question.stream ? fullStream : whole)(asking(way, question, seen, leaving), seen);
  ways[`${way} textStream`] = (question, seen, leaving) =>
    textStream(asking(way, question, seen, leaving), seen);
}
await answerAll(ways);
