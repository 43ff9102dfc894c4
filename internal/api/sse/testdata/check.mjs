// What both clients are held to: every line once, in order, up to complete.
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [, , folder, url] = process.argv;
export { url };

// The clients live in a folder outside the repository.
const require = createRequire(`${folder}/package.json`);
export const load = (name) => import(pathToFileURL(require.resolve(name)).href);

const seen = { lines: 0, opens: 0, complete: null, lastId: null, problems: [] };
let next = 1;

export function opened() {
  seen.opens++;
}

export function take(name, id, data) {
  seen.lastId = id;
  const object = JSON.parse(data);
  if (name === 'log') {
    if (object.seq !== next || id !== String(next) || object.content !== `line ${next}`) {
      seen.problems.push(`want line ${next}, got id ${id}: ${data}`);
    }
    next++;
    seen.lines++;
  } else if (name === 'complete') {
    seen.complete = { id, ...object };
  }
}

export function report(ended) {
  console.log(JSON.stringify({ ...seen, problems: seen.problems.slice(0, 5), ended }));
  process.exit(0);
}

setTimeout(() => report('gave up waiting'), 60_000).unref();
