/** Announcements for screen readers: whole sentences, never single tokens. */

const MAX_KEPT = 10;
let region = document.getElementById("announcements");

/** Announce in another element, such as one in a shadow root; it needs `role="log"`. */
export function announceIn(element) {
  region = element;
}

export function announce(text) {
  const line = document.createElement("p");
  line.textContent = text;
  region.append(line);
  while (region.childElementCount > MAX_KEPT) region.firstElementChild.remove();
}
