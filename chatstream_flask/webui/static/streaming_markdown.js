/**
 * Rendering of growing Markdown: finished blocks are rendered once, only the last block again.
 *
 * It runs at most once per animation frame; in a hidden tab the browser decides.
 */

import { colourCode, frameCode } from "./code_block.js";
import { blocksOf, renderBlocks } from "./markdown.js";

/** A last line of up to this many characters may still become the next item of the list before it. */
const MAX_MARKER_LEN = 4;

export class StreamingMarkdown {
  text = "";

  /** @param onBlock called with the text of each finished block */
  constructor(container, onBlock = () => {}) {
    Object.assign(this, { container, onBlock });
    this.lastBlock = document.createElement("div");
    this.lastBlock.className = "last-block";
    this.numDone = 0; // characters in finished blocks
    this.hasDefinitions = false; // link definitions may follow the links that use them
    this.frame = null;
    container.replaceChildren(this.lastBlock);
  }

  push(text) {
    this.text += text.replaceAll("\r", "");
    this.frame ??= requestAnimationFrame(() => this.draw());
  }

  end() {
    if (this.frame !== null) cancelAnimationFrame(this.frame);
    const blocks = blocksOf(this.text.slice(this.numDone));
    this.lastBlock.replaceChildren();
    this.#keep(blocks);
    this.lastBlock.remove();
    if (this.hasDefinitions || hasDefinition(blocks)) drawMarkdown(this.container, this.text);
  }

  /** Render what has been added since the last time. */
  draw() {
    this.frame = null;
    const blocks = blocksOf(this.text.slice(this.numDone));
    this.hasDefinitions ||= hasDefinition(blocks);
    const last = blocks.findLastIndex((block) => block.type !== "space");
    const isSettled = last > 0 && blocks[last].raw.trim().length > MAX_MARKER_LEN;
    if (isSettled) this.#keep(blocks.splice(0, last));
    this.#drawLast(blocks);
  }

  #keep(blocks) {
    const drawn = renderBlocks(blocks);
    frameCode(drawn);
    const elements = [...drawn.children];
    this.lastBlock.before(drawn);
    this.numDone += blocks.reduce((length, block) => length + block.raw.length, 0);
    for (const element of elements) {
      colourCode(element);
      this.onBlock(element.textContent.trim());
    }
  }

  /** Append to a code block; rendering a long one again each time would be slow. */
  #drawLast(blocks) {
    const last = blocks.findLast((block) => block.type !== "space");
    const code = this.lastBlock.querySelector("pre > code");
    const isSameCode = code && last?.type === "code" && last.lang === this.codeLanguage;
    if (isSameCode && last.text.startsWith(code.textContent.trimEnd())) {
      code.textContent = last.text;
      return;
    }
    this.codeLanguage = last?.type === "code" ? last.lang : undefined;
    const drawn = renderBlocks(blocks);
    frameCode(drawn);
    this.lastBlock.replaceChildren(drawn);
  }
}

function hasDefinition(blocks) {
  return blocks.some((block) => block.type === "def");
}

/** Render a complete text. */
export function drawMarkdown(container, text) {
  const drawn = renderBlocks(blocksOf(text));
  frameCode(drawn);
  container.replaceChildren(drawn);
  colourCode(container);
}
