// Small conveniences; every page works without them.

// A picture that cannot be shown makes way for the colours of its digest behind it.
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
