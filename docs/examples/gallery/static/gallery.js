// Small conveniences; every page works without them.

// A picture or film that cannot be shown makes way for its icon, which stands behind it.
const giveWay = (shown) => shown.closest(".thumb") && shown.remove();
const isShown = (target) => target.matches?.("img, video");
document.addEventListener("error", ({ target }) => isShown(target) && giveWay(target), true);
for (const image of document.images) {
  if (image.complete && image.naturalWidth === 0) giveWay(image);
}

// The first frame of a film is fetched when its tile comes into view.
const films = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    films.unobserve(target);
    target.src = target.dataset.src;
  }
});
const watch = (tree) => tree.querySelectorAll("video[data-src]").forEach((film) => films.observe(film));
watch(document);
const grid = document.getElementById("grid");
if (grid) new MutationObserver(() => watch(grid)).observe(grid, { childList: true });

for (const button of document.querySelectorAll("[data-copy]")) {
  const field = document.getElementById(button.dataset.copy);
  const status = button.closest(".copy").querySelector("[role=status]");
  button.hidden = false;
  field.addEventListener("focus", () => field.select());
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(field.value);
      button.textContent = status.textContent = "Copied";
    } catch {
      field.focus(); // no clipboard without HTTPS: leave it selected for Ctrl+C
    }
  });
}

// "Delete…" opens a question that can be taken back, by its button or by Escape.
for (const question of document.querySelectorAll("details.delete")) {
  const summary = question.querySelector("summary");
  const cancel = question.querySelector("[data-close]");
  const close = () => {
    question.open = false;
    summary.focus();
  };
  cancel.hidden = false;
  cancel.addEventListener("click", close);
  question.addEventListener("keydown", ({ key }) => key === "Escape" && question.open && close());
  question.addEventListener("toggle", () => {
    if (question.open) question.scrollIntoView({ block: "nearest" });
  });
}
