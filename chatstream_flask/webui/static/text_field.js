/** Fields of several lines in which Enter sends. */

export const IS_TOUCH_ONLY = window.matchMedia("(hover: none) and (pointer: coarse)").matches;
const IME_KEY_CODE = 229; // what Safari still tells when Enter ends a conversion

/** Not while Japanese is being converted; on a phone Enter is a new line, as everywhere there. */
export function isSendKey(event) {
  if (event.key !== "Enter" || event.isComposing || event.keyCode === IME_KEY_CODE) return false;
  return event.ctrlKey || event.metaKey || !(event.shiftKey || event.altKey || IS_TOUCH_ONLY);
}

export function isCancelKey(event) {
  return event.key === "Escape" && !event.isComposing && event.keyCode !== IME_KEY_CODE;
}

/** As high as its text; the style sheet says how high at most. */
export function fitHeight(area) {
  area.style.height = "auto";
  area.style.height = `${area.scrollHeight + area.offsetHeight - area.clientHeight}px`;
}
