/** Likes and dislikes: sent to the server, and remembered for this tab. */

const KEY = "chatstream.feedback";
const MAX_KEPT = 200;

export class Feedback {
  constructor(api, storage) {
    Object.assign(this, { api, storage });
    this.given = new Map(JSON.parse(storage.getItem(KEY) ?? "[]"));
  }

  get(messageId) {
    return this.given.get(messageId) ?? null;
  }

  async set(messageId, isLike) {
    await this.api.setFeedback(messageId, isLike);
    this.given.set(messageId, isLike);
    this.storage.setItem(KEY, JSON.stringify([...this.given].slice(-MAX_KEPT)));
  }
}
