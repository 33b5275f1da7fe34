// Uploads a file by Uppy: node uppy.mjs ENDPOINT FILE
import { readFileSync } from "node:fs";
import Uppy from "@uppy/core";
import Tus from "@uppy/tus";

const [endpoint, path] = process.argv.slice(2);
const data = readFileSync(path);
const uppy = new Uppy().use(Tus, { endpoint, retryDelays: Array(50).fill(50) });
uppy.addFile({ name: "film.mp4", data: Object.assign(data, { size: data.length }) });
const { successful, failed } = await uppy.upload();
if (failed.length) {
  console.error(failed[0].error);
  process.exit(1);
}
console.log(successful[0].uploadURL);
