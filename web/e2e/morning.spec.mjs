// The morning after: what needs a person, long lists, and a search in a long log.
import assert from 'node:assert/strict'
import { test } from './fixtures.mjs'
import { close, open, settled, violations } from './harness.mjs'
import { until } from './server.mjs'

test('needs you: first on the overview, with actions, in the title and the navigation', async ({ server }) => {
  const page = await open(server)
  await page.goto('/')
  await settled(page)
  assert.equal(await page.getByTestId('needs-you').count(), 0)
  assert.equal(await page.title(), 'Overview · Agented')
  const id = await server.run('Long job', 'echo begin; sleep 600')
  const begun = async () => (await server.api('GET', `/api/v1/executions/${id}/log`)).lines.length > 0
  await until('it runs', begun)
  await server.api('POST', `/api/v1/executions/${id}/pause`, { reason: 'look at the disk first' })
  await server.api('POST', '/api/v1/triggers', {
    name: 'Review',
    backend: 'command',
    command: ['true'],
    webhooks: [{ source: 'github' }],
  })
  const strip = page.getByTestId('needs-you')
  await strip.locator('[data-kind=paused]').getByText('look at the disk first').waitFor()
  await strip.locator('[data-kind=trigger]').getByText('GITHUB_WEBHOOK_SECRET').waitFor()
  await until('the title has the number', async () => (await page.title()) === '(2) Overview · Agented')
  assert.equal(
    await page
      .getByTestId('urgent')
      .first()
      .innerText()
      .then(t => t.replace(/\D/g, '')),
    '2',
  )
  assert.match(await page.locator('link[rel=icon]').getAttribute('href'), /^data:/)
  assert.deepEqual(await violations(page), [])
  // Its own status, everywhere.
  assert.match(await page.getByTestId('running').innerText(), /Paused/)
  await page.goto('/executions?status=paused')
  await settled(page)
  assert.equal(await page.locator('[data-execution]').count(), 1)
  await page.locator(`[data-execution="${id}"]`).getByText('Paused', { exact: true }).waitFor()
  await page.goto('/')
  await strip.getByTestId('needs-continue').click()
  await until('it continues', async () => !(await server.execution(id)).pause)
  await until('one item is left', async () => (await page.title()) === '(1) Overview · Agented')
  // From another page, too; and End ends it.
  await server.api('POST', `/api/v1/executions/${id}/pause`)
  await strip.getByTestId('needs-end').click()
  await server.ended(id)
  await close(page)
})

test('executions: the place in a long list is kept on Back, distant rows are not in the document', async ({
  server,
}) => {
  const trigger = await server.api('POST', '/api/v1/triggers', {
    name: 'Often',
    backend: 'command',
    command: ['true'],
    max_concurrent: 1,
  })
  for (let i = 0; i < 400; i += 20)
    await Promise.all(Array.from({ length: 20 }, () => server.api('POST', `/api/v1/triggers/${trigger.id}/run`)))
  await until(
    'all have ended',
    async () => (await server.api('GET', '/api/v1/executions?status=running,pending&limit=1')).items.length === 0,
    240_000,
  )
  const page = await open(server)
  await page.goto('/executions')
  await settled(page)
  const height = () => page.evaluate(() => document.documentElement.scrollHeight)
  let most = 0
  await until(
    'all pages are loaded',
    async () => {
      await page.mouse.wheel(0, 4000)
      most = Math.max(most, await page.locator('[data-execution]').count())
      return (await page.evaluate(() => window.scrollY)) > 15_000
    },
    120_000,
  )
  assert.ok((await page.locator('[data-execution]').count()) < 250, 'rows in the document')
  await page.mouse.wheel(0, -6000)
  await until('rows are in view', async () => (await page.locator('[data-execution]').count()) > 0)
  const y = await page.evaluate(() => window.scrollY)
  const total = await height()
  const row = await page.evaluate(() => {
    const inView = [...document.querySelectorAll('[data-execution]')].find(e => e.getBoundingClientRect().top > 300)
    return inView.dataset.execution
  })
  await page.locator(`[data-execution="${row}"] a`).first().click()
  await page.waitForURL(`**/executions/${row}`)
  await page.goBack()
  await page.locator(`[data-execution="${row}"]`).waitFor()
  await until('the place is kept', async () => Math.abs((await page.evaluate(() => window.scrollY)) - y) < 100)
  assert.ok(Math.abs((await height()) - total) < 1500)
  assert.ok(await page.locator(`[data-execution="${row}"]`).isVisible())
  // A part of a name is enough to find it.
  await page.goto('/executions?q=fte')
  await page.locator('[data-execution]').first().waitFor()
  await close(page)
})

test('log: a search starts at the reader and reaches every match', async ({ server }) => {
  const id = await server.run('Many', `seq 1 60000 | sed 's/^/shard=7 item /'`)
  await server.ended(id, 120_000)
  const page = await open(server)
  await page.goto(`/executions/${id}#L45000`)
  await page.locator('.lv-row[data-seq="45000"]').waitFor()
  const top = await page.evaluate(() => Number(document.querySelector('.lv-row').dataset.seq))
  await page.locator('.lv').focus()
  await page.keyboard.press('/')
  await page.keyboard.type('shard=7')
  await page.keyboard.press('Enter')
  const hits = page.getByTestId('hits')
  await hits.getByText(/of 60,000/).waitFor({ timeout: 60_000 })
  const at = async () => Number(/^([\d,]+) of/.exec(await hits.innerText())?.[1].replace(/,/g, ''))
  const first = await at()
  assert.ok(Math.abs(first - top) < 100, `${first} is near line ${top}`)
  for (let i = 1; i <= 5; i++) {
    await page.keyboard.press('Shift+Enter')
    await until('the match before', async () => (await at()) === first - i)
  }
  await page.locator(`.lv-hit[data-seq="${first - 5}"]`).waitFor()
  await close(page)
})
