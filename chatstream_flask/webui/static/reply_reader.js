/** Reads one reply to its end, over as many connections as that takes. */

import { Refused } from "./api.js";
import { pauseBefore } from "./retry.js";

export class ReplyReader {
  /**
   * @param listener `onQueue(place)`, `onStart()`, `onText(text)`, `onLost(delaySec, tryNow)`, `onBack()`
   * @param {AbortSignal} signal of a reader that leaves
   */
  constructor(api, messageId, listener, signal) {
    Object.assign(this, { api, messageId, listener, signal });
    this.lastEventId = "0";
  }

  /**
   * @param stream as `Api.ask` gives it; null to join a reply that runs
   * @returns {name: "done" | "error", data}, or {name: "gone"} if the server does not know it any more
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
    else if (event.name === "text") this.listener.onText(event.data.text);
    this.lastEventId = event.id ?? this.lastEventId;
  }
}

/** What a server, or a proxy before it, says while it is being started. */
function isPassing(refused) {
  return refused.status === 429 || refused.status >= 500;
}
