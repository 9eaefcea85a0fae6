// LangChain for JavaScript.
import { ChatAnthropic } from "@langchain/anthropic";
import { ChatOpenAI } from "@langchain/openai";
import { answerAll, call, KEY, PROMPT, TOOL } from "./asking.mjs";

const common = { maxRetries: 0, apiKey: KEY, streamUsage: true };

function openai({ url, model, headers }, useResponsesApi) {
  const configuration = { baseURL: `${url}/v1`, defaultHeaders: headers };
  return new ChatOpenAI({ ...common, model, useResponsesApi, configuration });
}

function anthropic({ url, model, headers }) {
  const clientOptions = { defaultHeaders: headers };
  return new ChatAnthropic({
    ...common,
    model,
    anthropicApiUrl: url,
    maxTokens: 99,
    clientOptions,
  });
}

const tools = [
  { type: "function", function: TOOL },
];

async function ask(model, question, seen, { signal }) {
  const bound = model.bindTools(tools);
  let whole = null;
  if (question.stream) {
    for await (const chunk of await bound.stream(PROMPT, { signal })) {
      seen.say(chunk.text);
      whole = whole ? whole.concat(chunk) : chunk;
    }
  } else {
    whole = await bound.invoke(PROMPT, { signal });
    seen.say(whole.text);
  }
  const metadata = whole.response_metadata;
  seen.name(whole.id);
  seen.finish =
    metadata.finish_reason ?? metadata.status ?? metadata.stop_reason ??
    whole.additional_kwargs?.stop_reason ?? null;
  seen.usage = whole.usage_metadata && [
    whole.usage_metadata.input_tokens,
    whole.usage_metadata.output_tokens,
  ];
  for (const { name, args } of whole.tool_calls ?? []) seen.calls.push(call(name, args));
}

await answerAll({
  chat: (question, ...rest) => ask(openai(question, false), question, ...rest),
  responses: (question, ...rest) => ask(openai(question, true), question, ...rest),
  messages: (question, ...rest) => ask(anthropic(question), question, ...rest),
});
