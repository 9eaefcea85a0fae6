// The openai package: raw events, and the helpers that accumulate them.
import OpenAI from "openai";
import { answerAll, call, KEY, PROMPT, TOOL } from "./asking.mjs";

const CHAT_TOOLS = [{ type: "function", function: TOOL }];
const RESPONSES_TOOLS = [{ type: "function", strict: false, ...TOOL }];

function client({ url, headers }) {
  return new OpenAI({ apiKey: KEY, baseURL: `${url}/v1`, maxRetries: 0, defaultHeaders: headers });
}

function takeCompletion(seen, completion) {
  const [choice] = completion.choices;
  seen.name(completion.id);
  seen.finish = choice.finish_reason;
  seen.usage = [completion.usage?.prompt_tokens, completion.usage?.completion_tokens];
  for (const { function: f } of choice.message.tool_calls ?? []) {
    seen.calls.push(call(f.name, f.arguments));
  }
  return choice.message.content;
}

function takeResponse(seen, response) {
  seen.name(response.id);
  seen.finish = response.status;
  seen.usage = response.usage && [response.usage.input_tokens, response.usage.output_tokens];
  for (const item of response.output) {
    if (item.type === "function_call") seen.calls.push(call(item.name, item.arguments));
  }
  return response.output_text;
}

async function chat(question, seen, { signal }) {
  const asked = { model: question.model, messages: PROMPT, tools: CHAT_TOOLS };
  const completions = client(question).chat.completions;
  if (!question.stream) {
    seen.say(takeCompletion(seen, await completions.create(asked, { signal })));
    return;
  }
  const whole = { name: "", arguments: "" };
  for await (const chunk of await completions.create({ ...asked, stream: true }, { signal })) {
    seen.name(chunk.id);
    if (chunk.usage) seen.usage = [chunk.usage.prompt_tokens, chunk.usage.completion_tokens];
    for (const { delta, finish_reason } of chunk.choices) {
      seen.say(delta.content);
      for (const { function: f } of delta.tool_calls ?? []) {
        whole.name += f.name ?? "";
        whole.arguments += f.arguments ?? "";
      }
      seen.finish ??= finish_reason;
    }
  }
  if (seen.finish === "tool_calls") seen.calls.push(call(whole.name, whole.arguments));
}

async function chatHelper(question, seen, { signal }) {
  const asked = { model: question.model, messages: PROMPT, tools: CHAT_TOOLS };
  const stream = client(question).chat.completions.stream(asked, { signal });
  stream.on("content", (piece) => seen.say(piece));
  takeCompletion(seen, await stream.finalChatCompletion());
}

async function responses(question, seen, { signal }) {
  const asked = { model: question.model, input: "Count.", tools: RESPONSES_TOOLS };
  const api = client(question).responses;
  if (!question.stream) {
    seen.say(takeResponse(seen, await api.create(asked, { signal })));
    return;
  }
  for await (const event of await api.create({ ...asked, stream: true }, { signal })) {
    if (event.response) seen.name(event.response.id);
    if (event.type === "response.output_text.delta") seen.say(event.delta);
    if (event.type === "response.completed") takeResponse(seen, event.response);
  }
}

async function responsesHelper(question, seen, { signal }) {
  const asked = { model: question.model, input: "Count.", tools: RESPONSES_TOOLS };
  const stream = client(question).responses.stream(asked, { signal });
  stream.on("response.output_text.delta", (event) => seen.say(event.delta));
  takeResponse(seen, await stream.finalResponse());
}

await answerAll({
  chat,
  "chat helper": chatHelper,
  responses,
  "responses helper": responsesHelper,
});
