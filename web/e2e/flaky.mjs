// Lists the tests that passed only when they were repeated, in bin/flaky-browser.txt.
import { appendFileSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'

const file = join(import.meta.dirname, '..', '..', 'bin', 'flaky-browser.txt')

export default class {
  flaky = new Set()

  onTestEnd(test) {
    if (test.outcome() === 'flaky') this.flaky.add(test.title)
  }

  onEnd() {
    if (this.flaky.size === 0) return
    mkdirSync(join(file, '..'), { recursive: true })
    appendFileSync(file, [...this.flaky].map(title => `${title}\n`).join(''))
  }

  printsToStdio() {
    return false
  }
}
