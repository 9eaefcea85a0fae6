// Reads questions from stdin, one JSON object to a line, puts them all at once, and prints what was
// seen of each answer as one line of JSON. What a question holds: ../asking.py.
import { createInterface } from "node:readline";

export const TOOL = {
  name: "count",
  description: "Count.",
  parameters: {
    type: "object",
    properties: { upto: { type: "integer" }, unit: { type: "string" } },
    required: ["upto", "unit"],
  },
};
export const KEY = "sk-scripted";
export const PROMPT = [{ role: "user", content: "Count." }];

// `ways` maps a way of asking to `async (question, seen, leaving) => …`, which fills in `seen`, calls
// `seen.say` for every piece of text and hands `leaving.signal` to the client under test.
export async function answerAll(ways) {
  const answers = [];
  setInterval(() => {}, 1000); // whatever a client does to be no reason to stay
  for await (const line of createInterface({ input: process.stdin })) {
    answers.push(put(ways, JSON.parse(line)));
  }
  await Promise.all(answers);
  process.exit(0); // whatever connections a client keeps
}

async function put(ways, question) {
  const leaving = new AbortController();
  const seen = { key: question.key, text: "", calls: [], ids: [], finish: null, usage: null };
  const leave = () => {
    seen.left ??= now();
    leaving.abort();
  };
  seen.say = (piece) => {
    seen.text += piece ?? "";
    if (piece && question.leave === "output") leave();
  };
  seen.name = (id) => {
    if (id && !seen.ids.includes(id)) seen.ids.push(id);
  };
  const timer = typeof question.leave === "number" && setTimeout(leave, question.leave * 1000);
  const began = now();
  try {
    await ways[question.way](question, seen, leaving);
  } catch (error) {
    seen.error = told(error);
  }
  clearTimeout(timer);
  console.log(JSON.stringify({ ...seen, seconds: now() - began }));
}

export function told(error) {
  return {
    name: error?.constructor?.name ?? typeof error,
    message: String(error?.message ?? JSON.stringify(error)),
    status: error?.status ?? error?.statusCode ?? error?.code ?? null,
  };
}

export function call(name, input) {
  return `${name}(${typeof input === "string" ? input : JSON.stringify(input)})`;
}

// Seconds of the system's monotonic clock, the one Python's `time.monotonic` reads.
function now() {
  return Number(process.hrtime.bigint()) / 1e9;
}
