// One resumable upload, by the IETF draft "Resumable Uploads for HTTP" (draft-ietf-httpbis-resumable-upload).
//
//   POST    create it, empty       -> its URL, which is kept until the end, also over a reload
//   PATCH   send all that is left  -> the app's answer
//   HEAD    after a break          -> how much has arrived, and PATCH again
//   DELETE  when it is cancelled

const PREFIX = "upload ";
const KEPT = 24 * 3600 * 1000; // milliseconds that a server keeps a broken upload: HASHFS_UPLOADS_EXPIRE
const SILENCE = 30_000; // milliseconds without progress after which a connection is taken for dead
const LONGEST_WAIT = 30; // seconds
const TRANSIENT = new Set([408, 409, 425, 429, 500, 502, 503, 504]);
const FINAL = new Set([413, 415, 422]); // too large, of a wrong type, refused by an inspector
const inUse = new Set(); // two rows with the same file are two uploads

/** The server has said no. What it said of the file itself (isFinal) it would say again. */
export class Refused extends Error {
  constructor(words, isFinal = false) {
    super(words);
    this.isFinal = isFinal;
  }
}

/** The upload is unknown there, or expired. */
class Gone extends Refused {}

/** The connection broke, or the server is not well: to be tried again. */
class Trouble extends Error {
  constructor(words, seconds = 0) {
    super(words);
    this.seconds = seconds;
  }
}

const memory = (work) => {
  try {
    return work(localStorage);
  } catch {
    return null; // storage is switched off or full: uploads go on, but not over a reload
  }
};

const forgetOld = () =>
  memory((storage) => {
    for (const key of Object.keys(storage).filter((key) => key.startsWith(PREFIX))) {
      if (!(JSON.parse(storage[key]).since > Date.now() - KEPT)) delete storage[key];
    }
  });

const quoted = (name) =>
  encodeURIComponent(name).replace(/['()*]/g, (char) => `%${char.charCodeAt(0).toString(16)}`);

const check = (status, words, retryAfter) => {
  if (status < 300) return;
  if (status === 413) words = document.querySelector("#limit")?.dataset.tooLarge ?? words;
  if (TRANSIENT.has(status)) throw new Trouble("The server is busy", Number(retryAfter) || 0);
  const kind = status === 404 || status === 410 ? Gone : Refused;
  throw new kind(words || `Error ${status}`, FINAL.has(status));
};

const wordsOf = (answer) => answer?.words ?? answer?.detail ?? answer?.title;

export class ResumableUpload {
  /**
   * @param {File} file
   * @param {string} endpoint where uploads are created
   * @param {{progress: (sent: number) => void, wait: (words: string, seconds: number) => void}} on
   */
  constructor(file, endpoint, on) {
    this.file = file;
    this.endpoint = endpoint;
    this.on = on;
    this.offset = 0;
    this.aborter = new AbortController();
    this.key = `${PREFIX}${[file.name, file.type, file.size, file.lastModified].join("|")}`;
  }

  /** Send the file, however often that breaks off, and return the app's answer. */
  async send() {
    const isOurs = !inUse.has(this.key);
    inUse.add(this.key);
    if (!isOurs) this.key = null;
    else forgetOld();
    try {
      this.url = this.remembered();
      this.isOld = Boolean(this.url);
      return await this.sendPatiently();
    } finally {
      if (isOurs) inUse.delete(this.key);
    }
  }

  async sendPatiently() {
    let failures = 0;
    let furthest = 0;
    for (;;) {
      try {
        await (this.url ? this.locate() : this.create());
        if (this.offset > furthest) failures = 0;
        furthest = this.offset;
        const answer = await this.append();
        this.forget();
        return answer;
      } catch (error) {
        if (this.aborter.signal.aborted) throw this.aborter.signal.reason;
        if (error instanceof Gone) {
          this.forget();
          if (!this.isOld) throw error;
          this.isOld = false; // it was of an earlier visit: begin again
        } else if (error instanceof Trouble) {
          await this.checkFile();
          await this.pause(error, failures++);
        } else {
          this.forget();
          throw error;
        }
      }
    }
  }

  /** Stop, and let the server drop what it has. */
  cancel() {
    this.aborter.abort();
    this.drop();
  }

  drop() {
    if (this.url) fetch(this.url, { method: "DELETE", keepalive: true }).catch(() => {});
    this.forget();
  }

  /** Try again now, rather than at the end of the countdown. */
  hurry() {
    this.wake?.();
  }

  async create() {
    const answer = await this.fetch(this.endpoint, "POST", {
      "Upload-Complete": "?0",
      "Upload-Length": String(this.file.size),
      "Upload-Draft-Interop-Version": "8",
      "Content-Disposition": `attachment; filename*=UTF-8''${quoted(this.file.name)}`,
    });
    this.url = answer.headers.get("Location");
    if (this.aborter.signal.aborted) {
      this.drop();
      throw this.aborter.signal.reason;
    }
    this.offset = 0;
    memory((storage) => {
      if (this.key) storage[this.key] = JSON.stringify({ url: this.url, since: Date.now() });
    });
  }

  async locate() {
    const answer = await this.fetch(this.url, "HEAD", {});
    this.offset = Number(answer.headers.get("Upload-Offset"));
    this.on.progress(this.offset);
  }

  async fetch(url, method, headers) {
    const signals = [AbortSignal.timeout(SILENCE)];
    // A creation is not aborted: a page that does so never learns the URL to delete.
    if (method !== "POST") signals.push(this.aborter.signal);
    let answer;
    try {
      answer = await fetch(url, {
        method,
        headers: { ...headers, Accept: "application/json" },
        cache: "no-store",
        signal: AbortSignal.any(signals),
      });
    } catch {
      throw new Trouble("The server cannot be reached");
    }
    const words = answer.ok ? null : wordsOf(await answer.json().catch(() => null));
    check(answer.status, words, answer.headers.get("Retry-After"));
    return answer;
  }

  /** Send all that is left. XMLHttpRequest, since fetch does not tell how much has been sent. */
  append() {
    const { signal } = this.aborter;
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      const stop = () => request.abort();
      let silence;
      const listen = () => {
        clearTimeout(silence);
        silence = setTimeout(stop, SILENCE);
      };
      request.open("PATCH", this.url);
      request.responseType = "json";
      request.setRequestHeader("Accept", "application/json");
      request.setRequestHeader("Content-Type", "application/partial-upload");
      request.setRequestHeader("Upload-Offset", String(this.offset));
      request.setRequestHeader("Upload-Complete", "?1");
      request.upload.addEventListener("progress", ({ loaded }) => {
        listen();
        this.on.progress(this.offset + loaded);
      });
      request.upload.addEventListener("load", () => clearTimeout(silence)); // it is being stored
      request.addEventListener("load", () => {
        try {
          const { status, response } = request;
          check(status, wordsOf(response), request.getResponseHeader("Retry-After"));
          resolve(response);
        } catch (error) {
          reject(error);
        }
      });
      for (const broken of ["error", "abort"]) {
        request.addEventListener(broken, () => reject(new Trouble("The connection broke")));
      }
      request.addEventListener("loadend", () => {
        clearTimeout(silence);
        signal.removeEventListener("abort", stop);
      });
      signal.addEventListener("abort", stop);
      listen();
      request.send(this.file.slice(this.offset));
    });
  }

  /** A file that was changed or moved breaks every request, and never gets better. */
  async checkFile() {
    try {
      await this.file.slice(0, 1).arrayBuffer();
    } catch {
      throw new Refused("The file was changed or moved, and can no longer be read", true);
    }
  }

  /** Count down to the next attempt: at once after a first break, then ever longer. */
  async pause(trouble, failures) {
    const seconds = failures ? Math.min(2 ** (failures - 1), LONGEST_WAIT) : 0;
    for (let left = Math.max(seconds, trouble.seconds); left > 0; left--) {
      this.on.wait(trouble.message, left);
      const hurried = await this.second();
      if (this.aborter.signal.aborted) throw this.aborter.signal.reason;
      if (hurried) return;
    }
  }

  second() {
    return new Promise((resolve) => {
      const end = (hurried) => {
        clearTimeout(timer);
        removeEventListener("online", hurry);
        this.aborter.signal.removeEventListener("abort", hurry);
        this.wake = null;
        resolve(hurried);
      };
      const hurry = () => end(true);
      const timer = setTimeout(() => end(false), 1000);
      addEventListener("online", hurry);
      this.aborter.signal.addEventListener("abort", hurry);
      this.wake = hurry;
    });
  }

  remembered() {
    return this.key && memory((storage) => JSON.parse(storage[this.key] ?? "null")?.url);
  }

  forget() {
    this.url = null;
    if (this.key) memory((storage) => delete storage[this.key]);
  }
}
