/**
 * Turns a model's Markdown into safe DOM.
 *
 * HTML is shown as text, images become links, and the result passes DOMPurify with a short list of allowed
 * tags. The page's Content-Security-Policy is the last line of defence.
 */

import { Marked } from "./vendor/marked.esm.js";
import { LIMITS, MAX_TEXT_LEN } from "./markdown_limits.js";
import "./vendor/purify.min.js";

const PURIFY = globalThis.DOMPurify;
const SANITIZE = {
  ALLOWED_TAGS: [
    ..."a b blockquote br code del em h3 h4 h5 h6 hr i kbd li ol p pre s span strong sub sup".split(" "),
    ..."table tbody td th thead tr ul".split(" "),
  ],
  ALLOWED_ATTR: ["align", "class", "href", "start", "title"],
  ADD_URI_SAFE_ATTR: ["align", "start"],
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  ALLOW_ARIA_ATTR: false,
  ALLOW_DATA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};
const HARMLESS_TAG = /^<(?:br\s*\/?|\/?(?:kbd|sub|sup))>$/i;
const CJK = /[\u3000-\u30ff\u3400-\u9fff\uff00-\uffef]/;

const marked = new Marked({ gfm: true, breaks: true });
marked.use(LIMITS);
marked.use({
  renderer: {
    html: ({ text }) => (HARMLESS_TAG.test(text.trim()) ? text : escaped(text)),
    image({ href, title, text, raw }) {
      return this.link({ href, title, raw, tokens: [{ type: "text", text: text || href, raw, escaped: false }] });
    },
    heading({ tokens, depth }) {
      const level = Math.min(depth + 2, 6); // the page uses the first two levels itself
      return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>\n`;
    },
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
  },
  extensions: [
    {
      // CommonMark sees no emphasis in **「これ」**は, because it expects spaces, which Japanese does not use.
      name: "cjkStrong",
      level: "inline",
      start: (source) => source.slice(0, MAX_TEXT_LEN).indexOf("**"),
      tokenizer(source) {
        const found = /^\*\*(?=\S)((?:[^*\n]|\*(?!\*))*?\S)\*\*(?!\*)/.exec(source);
        if (!found || !CJK.test(found[1])) return undefined;
        return { type: "strong", raw: found[0], text: found[1], tokens: this.lexer.inlineTokens(found[1]) };
      },
    },
  ],
});

PURIFY.addHook("afterSanitizeAttributes", (node) => {
  if (node.tagName !== "A" || !node.hasAttribute("href")) return;
  node.setAttribute("target", "_blank");
  node.setAttribute("rel", "noopener noreferrer nofollow");
});

/** Return the blocks in order: tokens of marked, each with its source in `raw`. */
export function blocksOf(source) {
  return marked.lexer(source);
}

/** @returns {DocumentFragment} */
export function renderBlocks(blocks) {
  return PURIFY.sanitize(marked.parser(blocks), SANITIZE);
}

/** Turn the markup of highlight.js into DOM. */
export function sanitizeSpans(html) {
  return PURIFY.sanitize(html, { ALLOWED_TAGS: ["span"], ALLOWED_ATTR: ["class"], RETURN_DOM_FRAGMENT: true });
}

function escaped(text) {
  const replaced = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
  return text.replace(/[&<>"']/g, (char) => replaced[char]);
}
