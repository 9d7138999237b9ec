/** Server-sent events from fetch: EventSource can neither POST nor show the error of a refusal. */

/** The connection was silent for much longer than the interval of the server's heartbeats. */
export const MAX_SILENCE_MS = 45_000;

/**
 * Yield complete events as {name, id, data}; throws if the connection breaks.
 * @param {ReadableStream<Uint8Array>} body
 */
export async function* readEvents(body, maxSilenceMs = MAX_SILENCE_MS) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await withinTime(reader.read(), maxSilenceMs);
      if (done) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const event = parse(block);
        if (event) yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parse(block) {
  const fields = {};
  for (const line of block.split("\n")) {
    const colon = line.indexOf(":");
    if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 1).replace(/^ /, "");
  }
  if (!fields.event) return null; // a heartbeat
  return { name: fields.event, id: fields.id, data: JSON.parse(fields.data) };
}

function withinTime(promise, ms) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("silent for too long")), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
