// The tests of the interface in a real browser against the real server. An
// argument runs only those whose name holds it.
import { close, open, run } from './harness.mjs'
import { executions } from './executions.mjs'
import { limits } from './limits.mjs'
import { live } from './live.mjs'
import { looks } from './looks.mjs'
import { manage } from './manage.mjs'
import { people } from './people.mjs'
import { talk } from './talk.mjs'

const executablePath = process.env.CHROMIUM ?? ''
const bin = process.env.AGENTED_BIN ?? ''
if (!executablePath) {
  console.log('left out: there is no Chromium here')
  process.exit(0)
}
const tests = []
const test = (name, f, options) => tests.push({ name, f, options })
for (const part of [executions, manage, live, people, talk, limits, looks]) part({ test, open, close })

const start = Date.now()
const failed = await run(tests, { executablePath, bin, only: process.argv[2] })
console.log(`${failed === 0 ? 'all good' : `${failed} failed`}, ${((Date.now() - start) / 1000).toFixed(0)} s`)
process.exit(failed ? 1 : 0)
