// The panel of uploads: a few at a time, each with its bar, and one bar for all.

import { Refused, ResumableUpload } from "./resumable.js";

const AT_ONCE = 3;
const SPEED_WINDOW = 3000; // milliseconds that the shown speed looks back
const SHOWN = /^image\/(avif|bmp|gif|jpeg|png|webp)$/; // types that a thumbnail is made of

const form = document.getElementById("upload");
const picker = document.getElementById("files");
const panel = document.getElementById("transfers");
const list = panel.querySelector("ul");
const clear = document.getElementById("clear");
const againAll = document.getElementById("again-all");
const cancelAll = document.getElementById("cancel-all");
const fold = document.getElementById("fold");
const whole = document.getElementById("whole");
const grid = document.getElementById("grid");
const announce = document.getElementById("announce");
const limit = Number(form.dataset.limit) || Infinity;
const transfers = new Set(); // in the order in which they were chosen
let newest = 0;

const size = (bytes) => {
  const units = ["bytes", "kB", "MB", "GB"];
  let unit = 0;
  for (; bytes >= 999.5 && unit < 3; unit++) bytes /= 1000;
  return `${Number(bytes.toPrecision(3))} ${units[unit]}`;
};

const time = (seconds) =>
  seconds < 90 ? `${Math.ceil(seconds)} s left` : `${Math.ceil(seconds / 60)} min left`;

/** Bytes per second, of the last few seconds. */
class Speed {
  samples = [];

  note(sent) {
    const now = performance.now();
    if (sent < this.samples.at(-1)?.[1]) this.samples = []; // what was on its way is lost
    this.samples.push([now, sent]);
    while (this.samples.length > 2 && now - this.samples[0][0] > SPEED_WINDOW) this.samples.shift();
    const [since, before] = this.samples[0];
    return ((sent - before) / Math.max(now - since, 1)) * 1000;
  }
}

class Transfer {
  constructor(file) {
    this.file = file;
    this.row = document.getElementById("transfer").content.cloneNode(true).firstElementChild;
    this.words = this.row.querySelector(".transfer-state");
    this.bar = this.row.querySelector("progress");
    this.link = this.row.querySelector("a");
    [this.again, this.button] = this.row.querySelectorAll("button");
    this.row.querySelector(".transfer-name").textContent = file.name;
    this.row.querySelector(".transfer-name").title = file.name;
    this.bar.setAttribute("aria-label", `Progress of ${file.name}`);
    this.again.setAttribute("aria-label", `Try again: ${file.name}`);
    this.button.addEventListener("click", () => (this.isActive ? this.cancel() : this.dismiss()));
    this.again.addEventListener("click", () => (this.isActive ? this.upload.hurry() : this.wait()));
    this.thumbnail();
    list.append(this.row);
    transfers.add(this);
    if (file.size > limit) this.end("failed", `Too large: the limit is ${size(limit)} a file`);
    else this.wait();
  }

  get state() {
    return this.row.dataset.state;
  }

  get isActive() {
    return this.state === "waiting" || this.state === "sending";
  }

  thumbnail() {
    const [, kind = ""] = /\.(\w{1,4})$/.exec(this.file.name) ?? [];
    this.row.querySelector(".transfer-picture").dataset.kind = kind;
    if (!SHOWN.test(this.file.type)) return;
    const image = this.row.querySelector("img");
    image.src = URL.createObjectURL(this.file);
    for (const end of ["load", "error"]) {
      image.addEventListener(end, () => URL.revokeObjectURL(image.src), { once: true });
    }
  }

  wait() {
    this.sent = 0;
    this.bar.value = 0;
    this.again.hidden = true;
    this.offer("Cancel");
    this.show("waiting", "Waiting");
    tidy();
    next();
  }

  async start() {
    const owner = encodeURIComponent(form.elements.owner.value);
    const upload = new ResumableUpload(this.file, `${form.dataset.uploads}?owner=${owner}`, {
      progress: (sent) => this.progress(sent),
      wait: (words, seconds) => {
        this.again.hidden = false;
        this.show("sending", `${words}: again in ${seconds} s`);
      },
    });
    this.upload = upload;
    this.speed = new Speed();
    this.show("sending", "Starting");
    try {
      this.stored(await upload.send());
    } catch (error) {
      if (this.upload !== upload || !this.isActive) return; // it was cancelled
      if (!(error instanceof Refused)) console.error(error);
      this.again.hidden = error.isFinal === true;
      this.end("failed", error.message);
    }
  }

  progress(sent) {
    if (!this.isActive) return;
    const total = this.file.size;
    const speed = this.speed.note(sent);
    this.sent = sent;
    this.again.hidden = true;
    this.bar.value = total ? sent / total : 0;
    this.show(
      "sending",
      sent < total ? `${size(sent)} of ${size(total)} at ${size(speed)}/s` : "Storing",
    );
    showWhole();
  }

  stored(file) {
    this.sent = this.file.size;
    this.bar.value = 1;
    if (file.item > newest) {
      newest = file.item; // answers may overtake each other, and only the last totals are whole
      document.getElementById("totals").innerHTML = file.totals;
    }
    grid.insertAdjacentHTML("afterbegin", file.card);
    this.link.href = grid.querySelector("a").href;
    this.link.setAttribute("aria-label", `View ${this.file.name}`);
    this.link.hidden = false;
    this.again.hidden = true;
    this.end(file.duplicate ? "duplicate" : "stored", file.outcome);
  }

  cancel() {
    this.show("cancelled", "Cancelled");
    this.upload?.cancel();
    this.upload = null; // so that a creation that still ends tells nothing of a later attempt
    this.again.hidden = false;
    this.end("cancelled", "Cancelled");
  }

  dismiss() {
    const neighbour = this.row.nextElementSibling ?? this.row.previousElementSibling;
    this.remove();
    (neighbour?.querySelector(".close") ?? picker).focus(); // never lose the keyboard's place
    tidy();
  }

  remove() {
    this.row.remove();
    transfers.delete(this);
  }

  end(state, words) {
    this.show(state, words);
    this.offer("Dismiss");
    announce.textContent = `${this.file.name}: ${words}`;
    tidy();
    next();
  }

  show(state, words) {
    this.row.dataset.state = state;
    this.words.textContent = words;
  }

  offer(label) {
    this.button.title = label;
    this.button.setAttribute("aria-label", `${label}: ${this.file.name}`);
  }
}

const inState = (...states) => [...transfers].filter(({ state }) => states.includes(state));
const active = () => inState("waiting", "sending");
const stored = () => inState("stored", "duplicate");
const ended = () => [...stored(), ...inState("cancelled", "failed")];

const next = () => {
  const free = AT_ONCE - inState("sending").length;
  for (const transfer of inState("waiting").slice(0, Math.max(free, 0))) transfer.start();
};

const unfinished = () => [...transfers].filter(({ isActive, again }) => !isActive && !again.hidden);

const tidy = () => {
  const failed = inState("failed").length;
  document.getElementById("summary").textContent =
    `${stored().length} of ${transfers.size} stored` + (failed ? `, ${failed} failed` : "");
  againAll.hidden = active().length > 0 || unfinished().length < 2;
  clear.hidden = active().length > 0 || ended().length < 2;
  cancelAll.hidden = active().length < 2;
  panel.hidden = !transfers.size;
  showWhole();
};

let wholeSpeed = new Speed();
const showWhole = () => {
  const counted = [...active(), ...stored()];
  const total = counted.reduce((sum, { file }) => sum + file.size, 0);
  const sent = counted.reduce((sum, transfer) => sum + transfer.sent, 0);
  const isBusy = active().length > 0;
  if (!isBusy) wholeSpeed = new Speed();
  const speed = isBusy ? wholeSpeed.note(sent) : 0;
  whole.hidden = !isBusy;
  whole.value = total ? sent / total : 0;
  document.getElementById("left").textContent = speed > 0 ? time((total - sent) / speed) : "";
};

const add = (files) => {
  for (const file of files) new Transfer(file);
};

clear.addEventListener("click", () => {
  for (const transfer of ended()) transfer.remove();
  tidy();
  picker.focus();
});
againAll.addEventListener("click", () => {
  for (const transfer of unfinished()) transfer.wait();
  cancelAll.focus();
});
cancelAll.addEventListener("click", () => {
  // Those that wait first, so that none of them begins in between.
  for (const transfer of [...inState("waiting"), ...inState("sending")]) transfer.cancel();
  picker.focus();
});
fold.addEventListener("click", () => {
  list.hidden = !list.hidden;
  fold.setAttribute("aria-expanded", String(!list.hidden));
});
addEventListener("beforeunload", (event) => active().length && event.preventDefault());

picker.addEventListener("change", () => {
  add(picker.files);
  picker.value = "";
});
form.addEventListener("submit", (event) => event.preventDefault()); // Enter in the name field
document.addEventListener("paste", (event) => add(event.clipboardData.files));

// The whole page is the drop target, and a folder stands for the files in it.
const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");

const filesIn = async (folder) => {
  const reader = folder.createReader();
  const files = [];
  for (;;) {
    const batch = await new Promise((...ends) => reader.readEntries(...ends));
    if (!batch.length) return files;
    for (const entry of batch) {
      if (entry.isDirectory) files.push(...(await filesIn(entry)));
      else files.push(await new Promise((...ends) => entry.file(...ends)));
    }
  }
};

const dropped = async ({ items }) => {
  const found = [...items]
    .filter(({ kind }) => kind === "file")
    .map((item) => {
      const entry = item.webkitGetAsEntry(); // now: the items are gone after the event
      return entry?.isDirectory ? entry : item.getAsFile();
    });
  for (const each of found) {
    try {
      add(each instanceof File ? [each] : await filesIn(each));
    } catch {
      announce.textContent = `${each.name} cannot be read`;
    }
  }
};

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
  dropped(event.dataTransfer);
});
