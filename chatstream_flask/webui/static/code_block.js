/** Code blocks: a header with the language and a copy button, and syntax colours once a block is complete. */

import { copyText } from "./clipboard.js";
import { element, icon } from "./element.js";
import { label } from "./i18n.js";
import { sanitizeSpans } from "./markdown.js";

const MAX_COLOURED_LEN = 50_000; // characters

/** Add the header to each `pre` in an element. */
export function frameCode(root) {
  for (const pre of root.querySelectorAll("pre")) {
    const language = languageOf(pre);
    const button = element("button", { type: "button", class: "icon-button copy-code" }, icon("copy"));
    label(button, "copy_code");
    button.addEventListener("click", () => copyText(pre.textContent, button));
    const head = element("div", { class: "code-head" }, element("span", {}, language), button);
    const frame = element("div", { class: "code-block" }, head);
    pre.replaceWith(frame);
    pre.tabIndex = 0; // makes it scrollable by keyboard
    frame.append(pre);
  }
}

/** Run a function when the browser is idle. */
export function colourCode(root) {
  for (const code of root.querySelectorAll("pre > code[class]")) whenIdle(() => colour(code));
}

function languageOf(pre) {
  return /language-([^\s]+)/.exec(pre.firstElementChild?.className ?? "")?.[1] ?? "";
}

async function colour(code) {
  const language = languageOf(code.parentElement);
  const source = code.textContent;
  if (source.length > MAX_COLOURED_LEN) return;
  const { default: highlighter } = await import("./vendor/highlight.min.js");
  if (!highlighter.getLanguage(language)) return;
  const { value } = highlighter.highlight(source, { language, ignoreIllegals: true });
  code.replaceChildren(sanitizeSpans(value));
}

function whenIdle(work) {
  if (window.requestIdleCallback) window.requestIdleCallback(work, { timeout: 500 });
  else setTimeout(work);
}
