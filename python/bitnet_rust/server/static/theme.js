// Sets the theme before the page is painted, so that a dark page does not begin with a white flash. The button is in app.js.
try {
  const theme = localStorage.getItem("bitnet.theme");
  if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
} catch {
  // Storage is switched off: the system's theme it is.
}
