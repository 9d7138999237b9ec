/** Browser storage; where it is blocked, values last until the next reload. */

class Forgetful {
  values = new Map();

  getItem(key) {
    return this.values.get(key) ?? null;
  }

  setItem(key, value) {
    this.values.set(key, value);
  }
}

/** @param {"localStorage" | "sessionStorage"} kind */
export function storageOf(kind) {
  try {
    window[kind].setItem("chatstream.check", "");
    return window[kind];
  } catch {
    return new Forgetful();
  }
}
