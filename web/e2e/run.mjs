// The tests of the interface in a real browser against the real server. An
// argument runs only those whose name contains it; --smoke runs the cases of
// `make test`, listed below.
import { close, open, run } from './harness.mjs'
import { executions } from './executions.mjs'
import { limits } from './limits.mjs'
import { live } from './live.mjs'
import { looks } from './looks.mjs'
import { manage } from './manage.mjs'
import { people } from './people.mjs'
import { smoke } from './smoke.mjs'
import { talk } from './talk.mjs'

const executablePath = process.env.CHROMIUM ?? ''
const bin = process.env.AGENTED_BIN ?? ''
if (!executablePath) {
  console.log('skipped: Chromium is not installed')
  process.exit(0)
}
// The cases of the smoke run.
const smokeNames = [
  'setup: first start to first live log',
  'log: follow, scroll away, link, search and copy',
  'trigger: create in the form, fire by webhook, watch to the end',
  'accessibility: no serious violation on the main pages',
]
const tests = []
const onlySmoke = process.argv[2] === '--smoke'
const test = (name, f, options) => tests.push({ name, f, options })
for (const part of [executions, manage, live, people, talk, limits, looks, smoke]) part({ test, open, close })
const missing = smokeNames.filter(name => !tests.some(t => t.name === name))
if (missing.length) throw new Error(`unknown smoke cases: ${missing.join(', ')}`)

const start = Date.now()
const failed = await run(onlySmoke ? tests.filter(t => smokeNames.includes(t.name)) : tests, {
  executablePath,
  bin,
  only: onlySmoke ? '' : process.argv[2],
  shared: onlySmoke,
})
console.log(`${failed === 0 ? 'all good' : `${failed} failed`}, ${((Date.now() - start) / 1000).toFixed(0)} s`)
process.exit(failed ? 1 : 0)
