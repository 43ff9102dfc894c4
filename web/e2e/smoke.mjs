// A case for the smoke run of `make test` only: the complete suite checks every page, in
// both themes and two sizes.
import assert from 'node:assert/strict'
import { overflow, settled, violations } from './harness.mjs'
import { fill, pages, tools } from './world.mjs'

const mainPages = ['overview', 'executions', 'execution-agent', 'triggers', 'trigger-new', 'settings-keys']

export function smoke({ test, open, close }) {
  test(
    'accessibility: no serious violation on the main pages',
    async server => {
      const all = pages(await fill(server))
      const page = await open(server)
      for (const name of mainPages) {
        assert.ok(all[name], `unknown page ${name}`)
        await page.goto(all[name])
        await settled(page)
        assert.deepEqual(await violations(page), [], name)
        assert.ok((await overflow(page)) <= 0, `${name} is wider than its screen`)
      }
      await close(page)
    },
    { tools, long: 3 },
  )
}
