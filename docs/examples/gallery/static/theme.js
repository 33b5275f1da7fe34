// Loaded before the page is painted, so that a chosen theme never flashes by in the other colours.
"use strict";
{
  const root = document.documentElement;
  const themes = ["Auto", "Light", "Dark"];
  root.classList.add("js");

  const stored = () => {
    try {
      return localStorage.getItem("theme");
    } catch {
      return null; // storage is switched off: follow the system
    }
  };
  const apply = (theme) => {
    root.dataset.theme = theme;
    const button = document.getElementById("theme");
    if (button) {
      button.lastChild.data = theme;
      button.hidden = false;
    }
  };

  apply(themes.includes(stored()) ? stored() : "Auto");
  document.addEventListener("DOMContentLoaded", () => {
    apply(root.dataset.theme);
    document.getElementById("theme").addEventListener("click", () => {
      apply(themes[(themes.indexOf(root.dataset.theme) + 1) % themes.length]);
      try {
        localStorage.setItem("theme", root.dataset.theme);
      } catch {
        // it holds for this page only
      }
    });
  });
}
