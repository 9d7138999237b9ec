/** Pauses between attempts to reach the server: longer each time, and ended when the network is back. */

const MAX_DELAY_MS = 15_000;

/**
 * @param {number} attempt from 1
 * @param onLost called with `(delaySec, tryNow)`; calling `tryNow` ends the pause
 */
export function pauseBefore(attempt, onLost, signal) {
  const delayMs = attempt === 1 ? 250 : Math.min(500 * 2 ** (attempt - 1), MAX_DELAY_MS) * (0.8 + 0.4 * Math.random());
  return new Promise((resolve, reject) => {
    const end = (settle) => () => {
      clearTimeout(timer);
      window.removeEventListener("online", goOn);
      signal?.removeEventListener("abort", leave);
      settle();
    };
    const goOn = end(resolve);
    const leave = end(() => reject(signal.reason));
    const timer = setTimeout(goOn, delayMs);
    window.addEventListener("online", goOn);
    signal?.addEventListener("abort", leave);
    if (attempt > 1) onLost(delayMs / 1000, goOn); // the first pause is too short to be shown
  });
}
