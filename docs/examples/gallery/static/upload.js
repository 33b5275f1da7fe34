// The list of uploads: a few at a time, each with its bar.

import { Refused, ResumableUpload } from "./resumable.js";

const AT_ONCE = 3;
const SPEED_WINDOW = 3000; // milliseconds that the shown speed looks back

const form = document.getElementById("upload");
const picker = document.getElementById("files");
const list = document.getElementById("transfers");
const clear = document.getElementById("clear");
const grid = document.getElementById("grid");
const announce = document.getElementById("announce");
const waiting = [];
let running = 0;
let newest = 0;

const size = (bytes) => {
  const units = ["bytes", "kB", "MB", "GB"];
  let unit = 0;
  for (; bytes >= 999.5 && unit < 3; unit++) bytes /= 1000;
  return `${Number(bytes.toPrecision(3))} ${units[unit]}`;
};

class Transfer {
  constructor(file) {
    this.file = file;
    this.row = document.getElementById("transfer").content.cloneNode(true).firstElementChild;
    this.state = this.row.querySelector(".transfer-state");
    this.bar = this.row.querySelector("progress");
    this.link = this.row.querySelector("a");
    this.button = this.row.querySelector("button");
    this.row.querySelector(".transfer-name").textContent = file.name;
    this.bar.setAttribute("aria-label", `Progress of ${file.name}`);
    this.button.addEventListener("click", () => this[this.action]());
    list.querySelector("ul").append(this.row);
    this.wait();
  }

  wait() {
    this.offer("cancel", "Cancel");
    this.show("waiting", "Waiting");
    this.bar.value = 0;
    waiting.push(this);
    tidy();
    next();
  }

  async start() {
    const owner = encodeURIComponent(form.elements.owner.value);
    this.upload = new ResumableUpload(this.file, `${form.dataset.uploads}?owner=${owner}`, {
      progress: (sent) => this.progress(sent),
      wait: (words, seconds) => this.show("sending", `${words}: again in ${seconds} s`),
    });
    this.samples = [];
    running++;
    this.show("sending", "Starting");
    try {
      this.stored(await this.upload.send());
    } catch (error) {
      if (this.row.dataset.state === "cancelled") return;
      if (!(error instanceof Refused)) console.error(error);
      this.fail(error.message);
    } finally {
      running--;
      next();
    }
  }

  progress(sent) {
    const total = this.file.size;
    const now = performance.now();
    if (sent < this.samples.at(-1)?.[1]) this.samples = []; // what was on its way is lost
    this.samples.push([now, sent]);
    while (this.samples.length > 2 && now - this.samples[0][0] > SPEED_WINDOW) this.samples.shift();
    const [since, before] = this.samples[0];
    const speed = ((sent - before) / Math.max(now - since, 1)) * 1000;
    this.bar.value = total ? sent / total : 0;
    this.show(
      "sending",
      sent < total ? `${size(sent)} of ${size(total)} at ${size(speed)}/s` : "Storing",
    );
  }

  stored(file) {
    this.bar.value = 1;
    this.end(file.duplicate ? "duplicate" : "stored", file.outcome, "dismiss", "Dismiss");
    if (file.item > newest) {
      newest = file.item; // answers may overtake each other, and only the last totals are whole
      document.getElementById("totals").innerHTML = file.totals;
    }
    grid.insertAdjacentHTML("afterbegin", file.card);
    this.link.href = grid.querySelector("a").href;
    this.link.setAttribute("aria-label", `View ${this.file.name}`);
    this.link.hidden = false;
  }

  cancel() {
    if (this.row.dataset.state === "waiting") waiting.splice(waiting.indexOf(this), 1);
    this.upload?.cancel();
    this.end("cancelled", "Cancelled", "wait", "Try again");
  }

  fail(words) {
    this.end("failed", words, "wait", "Try again");
  }

  dismiss() {
    const neighbour = this.row.nextElementSibling ?? this.row.previousElementSibling;
    this.row.remove();
    (neighbour?.querySelector("button") ?? picker).focus(); // never lose the keyboard's place
    tidy();
  }

  end(state, words, action, label) {
    this.show(state, words);
    this.offer(action, label);
    announce.textContent = `${this.file.name}: ${words}`;
    tidy();
  }

  show(state, words) {
    this.row.dataset.state = state;
    this.state.textContent = words;
  }

  offer(action, label) {
    this.action = action;
    this.button.textContent = label;
    this.button.setAttribute("aria-label", `${label}: ${this.file.name}`);
  }
}

const next = () => {
  while (running < AT_ONCE && waiting.length) waiting.shift().start();
};

const finished = () => list.querySelectorAll("[data-state=stored], [data-state=duplicate]");

const tidy = () => {
  const [all, done] = [list.querySelectorAll("li").length, finished().length];
  document.getElementById("summary").textContent = `${done} of ${all} stored`;
  clear.hidden = done < 2;
  list.hidden = !list.querySelector("li");
};

const add = (files) => {
  for (const file of files) new Transfer(file);
};

clear.addEventListener("click", () => {
  for (const row of finished()) row.remove();
  tidy();
  picker.focus();
});

picker.addEventListener("change", () => {
  add(picker.files);
  picker.value = "";
});
form.addEventListener("submit", (event) => event.preventDefault()); // Enter in the name field
document.addEventListener("paste", (event) => add(event.clipboardData.files));

// The whole page is the drop target. A folder has no bytes to send, so it is left out.
const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
const dropped = ({ items }) =>
  [...items]
    .filter((item) => item.kind === "file" && !item.webkitGetAsEntry?.()?.isDirectory)
    .map((item) => item.getAsFile());

document.addEventListener("dragover", (event) => {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  event.dataTransfer.dropEffect = "copy";
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", ({ relatedTarget }) => {
  if (!relatedTarget) document.body.classList.remove("dragging");
});
document.addEventListener("drop", (event) => {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  document.body.classList.remove("dragging");
  add(dropped(event.dataTransfer));
});
