// Many tabs on plain HTTP/1.1: a browser has six connections for all of them.
import assert from 'node:assert/strict'
import { test } from './fixtures.mjs'
import { lineCount, open } from './harness.mjs'
import { until } from './server.mjs'

const password = 'correct horse battery'
async function loggedIn(server) {
  await server.api('POST', '/api/v1/auth/users', { name: 'ann', password, role: 'admin' })
  const page = await open(server, { key: '' })
  await page.request.post('/api/v1/auth/login', { data: { name: 'ann', password } })
  return page
}

test('eight tabs with logs stay alive, each follows its log', async ({ server }) => {
  const go = `${server.dir}/go`
  const ids = []
  for (let i = 0; i < 4; i++)
    ids.push(
      await server.run(`Log ${i}`, `echo begin; while [ ! -e ${go} ]; do sleep 0.2; done; echo after; sleep 600`),
    )
  const first = await loggedIn(server)
  const tabs = [first]
  for (let i = 1; i < 8; i++) tabs.push(await first.context().newPage())
  for (const [i, tab] of tabs.entries()) {
    tab.setDefaultTimeout(60_000)
    await tab.goto(`/executions/${ids[i % ids.length]}`)
    await until(`tab ${i} shows its log`, async () => (await lineCount(tab)) >= 1, 60_000)
  }
  await server.run('go', `touch ${go}`)
  for (const [i, tab] of tabs.entries())
    await until(
      `tab ${i} has the new line`,
      async () => (await tab.locator('.lv-row', { hasText: 'after' }).count()) > 0,
      60_000,
    )
  // The first tab can still navigate, and so can a ninth.
  await first.goto('/triggers')
  await first.getByRole('heading', { name: 'Triggers' }).waitFor()
  const ninth = await first.context().newPage()
  await ninth.goto('/')
  await ninth.getByRole('heading', { name: 'Overview' }).waitFor()
})

test('tabs that are opened in the background release their streams', async ({ server }) => {
  const id = await server.run('Log', 'echo begin; sleep 600')
  const first = await loggedIn(server)
  const context = first.context()
  await context.addInitScript(() => {
    Object.defineProperty(document, 'hidden', { get: () => true })
    Object.defineProperty(document, 'visibilityState', { get: () => 'hidden' })
    // Without shared workers, each tab has connections of its own.
    delete window.SharedWorker
  })
  for (let i = 0; i < 5; i++) {
    const tab = await context.newPage()
    await tab.goto(`/executions/${id}`, { waitUntil: 'commit' })
    await until('the log is open', async () => (await lineCount(tab).catch(() => 0)) >= 1, 60_000)
  }
  const streams = async () => {
    const text = await (await fetch(`${server.url}/metrics`, { headers: { 'X-API-Key': server.key } })).text()
    return Number(/^agented_sse_readers (\d+)/m.exec(text)?.[1] ?? -1)
  }
  assert.ok((await streams()) >= 1)
  await until('the hidden tabs release them', async () => (await streams()) === 0, 60_000)
})
