// Prints every payload example with the signature that GitHub's own library
// gives it, one JSON object a line: {event, body, signature}.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
const require = createRequire(process.argv[2] + "/package.json");
const examples = require("@octokit/webhooks-examples/api.github.com/index.json");
const entry = process.argv[2] + "/node_modules/@octokit/webhooks-methods/dist-node/index.js";
const { sign } = await import(pathToFileURL(entry));
for (const { name, examples: payloads } of examples) {
  for (const payload of payloads) {
    const body = JSON.stringify(payload);
    console.log(JSON.stringify({ event: name, body, signature: await sign(process.argv[3], body) }));
  }
}
