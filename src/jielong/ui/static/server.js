// Asks the server, which is this machine's: JSON, and streams of events.

import { tell } from "./dom.js";
import { say } from "./words.js";

async function asked(path, body, signal) {
  let answer;
  const options = body === undefined ? {} : {
    method: "POST",
    body: JSON.stringify(body),
    headers: { "Content-Type": "application/json" },
  };
  try {
    answer = await fetch(path, { ...options, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error(say("The server does not answer. Has it ended?"));
  }
  if (!answer.ok) {
    const told = await answer.json().catch(() => null);
    throw new Error(told?.error?.message ?? `${answer.status}`);
  }
  return answer;
}

/** GET, or POST where there is a body; null where the answer is empty. */
export async function ask(path, body, signal) {
  const answer = await asked(path, body, signal);
  return answer.status === 204 ? null : answer.json();
}

/** POST, and yield each event of the answer. */
export async function* stream(path, body, signal) {
  const answer = await asked(path, body, signal);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    const lines = text.split("\n\n");
    text = lines.pop();
    for (const line of lines) {
      const event = JSON.parse(line.slice("data: ".length));
      if (event.error) throw new Error(event.error.message);
      yield event;
    }
  }
}

/** Do something; tell what goes wrong, unless it was given up. */
export async function telling(work) {
  try {
    return await work();
  } catch (error) {
    if (error.name !== "AbortError") tell(error.message, true);
    return undefined;
  }
}
