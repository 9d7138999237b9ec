/** Announcements for screen readers: whole sentences, never single tokens. */

const MAX_KEPT = 10;

export function announce(text) {
  const region = document.getElementById("announcements");
  const line = document.createElement("p");
  line.textContent = text;
  region.append(line);
  while (region.childElementCount > MAX_KEPT) region.firstElementChild.remove();
}
