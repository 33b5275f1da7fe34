// Small conveniences; every page works without them.

// A picture that cannot be shown makes way for its kind, which stands behind it.
const giveWay = (image) => image.closest(".thumb") && image.remove();
document.addEventListener("error", ({ target }) => target.matches?.("img") && giveWay(target), true);
for (const image of document.images) {
  if (image.complete && image.naturalWidth === 0) giveWay(image);
}

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
