/* The chosen colours before anything is drawn; a module would come too late. */
try {
  const theme = localStorage.getItem("chatstream.theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // the browser blocks storage
}
