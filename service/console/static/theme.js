// The colour theme that a user has chosen. A plain script, so that it runs before the first paint.
"use strict";
{
  const root = document.documentElement;
  const names = { auto: "system", light: "light", dark: "dark" };
  const order = Object.keys(names);
  // A browser may block the storage; then the choice lasts until the page is loaded again.
  const stored = (use) => {
    try {
      return use(localStorage);
    } catch {
      return null;
    }
  };
  let theme = stored((storage) => storage.getItem("rootstock-theme"));
  if (!order.includes(theme)) theme = "auto";
  const apply = () => {
    root.dataset.theme = theme;
    const button = document.getElementById("theme");
    if (button) {
      button.lastElementChild.textContent = names[theme];
      button.setAttribute("aria-label", `Theme: ${names[theme]}. Change the theme`);
    }
  };
  apply();
  document.addEventListener("DOMContentLoaded", () => {
    apply();
    document.getElementById("theme").addEventListener("click", () => {
      theme = order[(order.indexOf(theme) + 1) % order.length];
      stored((storage) => storage.setItem("rootstock-theme", theme));
      apply();
    });
  });
}
