/** Copying to the clipboard, and the button for it. */

import { announce } from "./announcer.js";
import { setIcon } from "./element.js";
import { word } from "./i18n.js";

const SHOWN_MS = 1600;

export async function copyText(text, button) {
  const isCopied = await write(text);
  setIcon(button, isCopied ? "check" : "cross");
  announce(word(isCopied ? "copied" : "copy_failed"));
  setTimeout(() => setIcon(button, "copy"), SHOWN_MS);
}

/** Copy a text; `navigator.clipboard` exists only on https and localhost, elsewhere `execCommand` works. */
async function write(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return writeBySelection(text);
  }
}

function writeBySelection(text) {
  const before = document.activeElement;
  const area = document.createElement("textarea");
  area.className = "visually-hidden";
  area.value = text;
  document.body.append(area);
  area.select();
  try {
    return document.execCommand("copy");
  } finally {
    area.remove();
    before?.focus();
  }
}
