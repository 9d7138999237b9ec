/** Multi-line fields in which Enter sends. */

export const IS_TOUCH_ONLY = window.matchMedia("(hover: none) and (pointer: coarse)").matches;
const IME_KEY_CODE = 229; // Safari sends this when Enter confirms an input method conversion

/** Whether a key press sends: not during an input method conversion, nor on phones, where Enter is a new line. */
export function isSendKey(event) {
  if (event.key !== "Enter" || event.isComposing || event.keyCode === IME_KEY_CODE) return false;
  return event.ctrlKey || event.metaKey || !(event.shiftKey || event.altKey || IS_TOUCH_ONLY);
}

export function isCancelKey(event) {
  return event.key === "Escape" && !event.isComposing && event.keyCode !== IME_KEY_CODE;
}

/** Fit the height of the field to its text; the style sheet sets the maximum. */
export function fitHeight(area) {
  area.style.height = "auto";
  area.style.height = `${area.scrollHeight + area.offsetHeight - area.clientHeight}px`;
}
