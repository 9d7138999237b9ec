/** Reads one reply to its end and reconnects as often as needed. */

import { Refused } from "./api.js";
import { pauseBefore } from "./retry.js";

export class ReplyReader {
  /**
   * @param listener `onQueue(place)`, `onStart()`, `onSources(sources)`, `onStep(step)`, `onReasoning(text)`, `onText(text)`, `onLost(delaySec, tryNow)`, `onBack()`
   * @param {AbortSignal} signal aborts reading
   */
  constructor(api, messageId, listener, signal) {
    Object.assign(this, { api, messageId, listener, signal });
    this.lastEventId = "0";
  }

  /**
   * @param stream from `Api.ask`; null to join a running reply
   * @returns {name: "done" | "error", data}, or {name: "gone"} if the server no longer has it
   */
  async read(stream) {
    for (let failures = 0; ; ) {
      try {
        stream ??= await this.api.resume(this.messageId, this.lastEventId, this.signal);
        for await (const event of stream.events) {
          if (failures) this.listener.onBack();
          failures = 0;
          if (event.name === "done" || event.name === "error") return event;
          this.#tell(event);
        }
      } catch (error) {
        this.signal.throwIfAborted();
        if (error instanceof Refused && !isPassing(error)) {
          if (failures) this.listener.onBack();
          if (error.status === 404) return { name: "gone" };
          throw error;
        }
      }
      stream = null;
      await pauseBefore(++failures, this.listener.onLost, this.signal);
    }
  }

  #tell(event) {
    if (event.name === "queue") this.listener.onQueue(event.data);
    else if (event.name === "start") this.listener.onStart();
    else if (event.name === "sources") this.listener.onSources(event.data.sources);
    else if (event.name === "step") this.listener.onStep(event.data);
    else if (event.name === "reasoning") this.listener.onReasoning(event.data.text);
    else if (event.name === "text") this.listener.onText(event.data.text);
    this.lastEventId = event.id ?? this.lastEventId;
  }
}

/** Whether a refusal may pass: the server, or a proxy in front of it, says so while it is starting. */
function isPassing(refused) {
  return refused.status === 429 || refused.status >= 500;
}
