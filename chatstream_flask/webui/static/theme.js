/** The colour theme: light, dark or that of the system; the button cycles through them. */

import { announce } from "./announcer.js";
import { setIcon } from "./element.js";
import { label, word } from "./i18n.js";

const KEY = "chatstream.theme";
const THEMES = ["system", "light", "dark"];

export function setUpTheme(button, storage) {
  let theme = document.documentElement.dataset.theme ?? "system";
  const show = () => {
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    setIcon(button, `theme-${theme}`);
    label(button, `theme_${theme}`);
  };
  button.addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    storage.setItem(KEY, theme);
    show();
    announce(word(`theme_${theme}`));
  });
  show();
}
