/**
 * Limits for marked, so that no text overflows its stack or takes it long: beyond them marks stay plain text.
 */

import { Tokenizer } from "./vendor/marked.esm.js";

const MAX_DEPTH = 30; // of quotes and lists in each other
const MAX_EMPHASIS_SCAN = 1_000_000; // characters that are searched for the ends of emphasis, all searches together
const MAX_URL_LEN = 2000;
/** Characters of one piece of plain text, in each of which marked looks for the next mark and for an address. */
export const MAX_TEXT_LEN = 300;

const usual = Tokenizer.prototype;

/** An extension of marked. */
export const LIMITS = {
  tokenizer: {
    blockquote(source) {
      return nested(this.lexer, () => usual.blockquote.call(this, source));
    },
    list(source) {
      return nested(this.lexer, () => usual.list.call(this, source));
    },
    emStrong(source, ...others) {
      if (!/^[*_]/.test(source)) return undefined;
      this.lexer.numScanned = (this.lexer.numScanned ?? 0) + source.length;
      return this.lexer.numScanned > MAX_EMPHASIS_SCAN ? undefined : usual.emStrong.call(this, source, ...others);
    },
    url(source) {
      return usual.url.call(this, source.slice(0, MAX_URL_LEN));
    },
    inlineText(source) {
      const end = source.length <= MAX_TEXT_LEN ? -1 : source.lastIndexOf(" ", MAX_TEXT_LEN);
      return usual.inlineText.call(this, source.slice(0, end > 0 ? end : MAX_TEXT_LEN));
    },
  },
};

function nested(lexer, tokenize) {
  if ((lexer.depth ?? 0) >= MAX_DEPTH) return undefined;
  lexer.depth = (lexer.depth ?? 0) + 1;
  try {
    return tokenize();
  } finally {
    lexer.depth -= 1;
  }
}
