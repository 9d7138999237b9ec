/** Likes and dislikes: sent to the server, and remembered for this tab. */

const KEY = "chatstream.feedback";
const MAX_KEPT = 200;

export class Feedback {
  constructor(storage) {
    this.storage = storage;
    this.given = new Map(JSON.parse(storage.getItem(KEY) ?? "[]"));
  }

  get(messageId) {
    return this.given.get(messageId) ?? null;
  }

  async set(api, messageId, isLike) {
    await api.setFeedback(messageId, isLike);
    this.given.set(messageId, isLike);
    this.storage.setItem(KEY, JSON.stringify([...this.given].slice(-MAX_KEPT)));
  }
}
