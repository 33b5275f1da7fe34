// Uploads a file by tus-js-client: node tus_js.mjs ENDPOINT FILE
import { createReadStream } from "node:fs";
import { Upload } from "tus-js-client";

const [endpoint, path] = process.argv.slice(2);
const upload = new Upload(createReadStream(path), {
  endpoint,
  retryDelays: Array(50).fill(50),
  metadata: { filename: "film.mp4" },
  onError: (error) => {
    console.error(error);
    process.exit(1);
  },
  onSuccess: () => console.log(upload.url),
});
upload.start();
