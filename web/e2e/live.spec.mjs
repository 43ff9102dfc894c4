// Live pages, webhook test requests, and agent output.
import assert from 'node:assert/strict'
import { serving, test } from './fixtures.mjs'
import { close, lines, open, settled } from './harness.mjs'
import { until } from './server.mjs'
import { command, standIn, tools } from './world.mjs'

test('live lists: deliveries, schedules and triggers after a crash', async ({ server }) => {
  const hook = await server.api('POST', '/api/v1/triggers', {
    name: 'Calls',
    ...command('echo hi'),
    webhooks: [{ source: 'webhook', auth: { kind: 'bearer' }, secret: 'a-long-and-random-secret' }],
  })
  const call = type =>
    fetch(`${server.url}${hook.webhook_url}`, {
      method: 'POST',
      body: JSON.stringify({ type }),
      headers: { 'Content-Type': 'application/json', Authorization: 'Bearer a-long-and-random-secret' },
    }).then(r => r.json())
  const page = await open(server)
  const asked = []
  page.on('request', r => asked.push(new URL(r.url()).pathname))
  await page.goto('/deliveries')
  await page.getByText('No deliveries yet').waitFor()
  await page.waitForFunction(() => performance.getEntriesByType('navigation').length === 1)
  await call('first')
  await page.getByTestId('deliveries').getByText('first').waitFor()
  await server.kill()
  await page.getByTestId('reconnecting').waitFor()
  await server.up()
  // Visible whether it arrived before or after the reconnect.
  await call('second')
  await page.getByTestId('deliveries').getByText('second').waitFor()
  assert.deepEqual(await page.getByTestId('deliveries').locator('li a').allTextContents(), ['second', 'first'])
  // No requests while nothing changes.
  await until('the stream is connected again', async () => !(await page.getByTestId('reconnecting').isVisible()))
  await page.waitForTimeout(1500)
  asked.length = 0
  await page.waitForTimeout(3000)
  assert.deepEqual(asked, [])

  await page.goto('/schedule?view=ledger')
  await page.getByText('No schedule has been due yet').waitFor()
  const often = await server.api('POST', '/api/v1/triggers', {
    name: 'Often',
    ...command('true'),
    schedules: [{ every: '2s' }],
  })
  const ticks = page.getByTestId('ticks').locator('li')
  await until('ticks appear', async () => (await ticks.count()) > 1)
  await page.getByRole('button', { name: 'Week' }).click()
  await page.getByText('Too often to draw').waitFor()
  await page.getByTestId('week').getByRole('link', { name: /Often/ }).first().waitFor()

  await page.goto('/triggers')
  const row = page.locator('[data-trigger="Often"]')
  await row.locator('[data-status=success]').waitFor()
  await server.api('PATCH', `/api/v1/triggers/${often.id}`, { enabled: false })
  await row.getByText('Disabled').waitFor()
  await server
    .api('POST', '/api/v1/triggers', { name: 'Made elsewhere', ...command('exit 3') })
    .then(t => server.api('POST', `/api/v1/triggers/${t.id}/run`))
  await page.locator('[data-trigger="Made elsewhere"] [data-status=failed]').waitFor()
  // The cause of an execution is one click away.
  const [e] = (await server.api('GET', `/api/v1/executions?trigger_id=${often.id}&limit=1`)).items
  await page.goto(`/executions/${e.id}`)
  await page.getByTestId('cause').click()
  await page.waitForURL(/view=ledger/)
  await page.locator('[data-marked]').waitFor()
  assert.equal(await page.locator('[data-marked] a').getAttribute('href'), `/executions/${e.id}`)
  await close(page)
})

test('webhook test request: signed, recorded, fires the trigger', async ({ server }) => {
  const trigger = await server.api('POST', '/api/v1/triggers', {
    name: 'Tried',
    ...command('echo fired; sleep 1'),
    webhooks: [
      { source: 'github', secret: 'a-long-and-random-secret', match: { events: ['issues.opened'] } },
      { source: 'webhook', auth: { kind: 'standard' }, secret: 'whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz' },
    ],
  })
  const page = await open(server)
  await page.goto(`/triggers/${trigger.id}`)
  await page.getByTestId('hook-test').click()
  const panel = page.getByRole('region', { name: 'Send a test request' })
  const answer = page.getByTestId('test-answer')
  await panel.getByLabel('Event').fill('push')
  await page.getByTestId('send-test').click()
  await answer.locator('[data-verdict=ignored]').waitFor()
  await answer.getByText(/the event is/).waitFor()
  await panel.getByLabel('Event').fill('')
  await page.getByTestId('send-test').click()
  await answer.locator('[data-verdict=accepted]').waitFor()
  await panel.getByLabel('Webhook').selectOption({ index: 1 })
  await page.getByTestId('send-test').click()
  await until(
    'another answer',
    async () => (await server.api('GET', '/api/v1/deliveries?verdict=accepted')).items.length === 2,
  )
  await answer.locator('[data-verdict=accepted]').waitFor()
  await answer.getByRole('link', { name: 'Execution', exact: true }).click()
  await page.waitForURL('**/executions/*')
  await page.getByTestId('cause').click()
  await page.getByText('sent by key').waitFor()
  await page.goto('/deliveries')
  await until(
    'three tests in the list',
    async () => (await page.getByTestId('deliveries').getByText('test', { exact: true }).count()) === 3,
  )
  await close(page)
})

serving({ tools })('agent output: structured view and raw view', async ({ server }) => {
  const t = await server.api('POST', '/api/v1/triggers', {
    name: 'Agent',
    backend: 'claude',
    prompt: 'Do {message} for {vars.who}.',
  })
  const page = await open(server)
  await page.goto('/triggers')
  await page.locator('[data-trigger="Agent"]').getByTestId('run').click()
  // The dialog asks for the values of the placeholders.
  const dialog = page.getByRole('dialog')
  await dialog.getByLabel('Message').fill('it')
  await dialog.getByLabel('who').fill('Ann')
  await page.getByTestId('run-yes').click()
  await page.waitForURL('**/executions/*')
  const tool = page.locator('.it-tool')
  await tool.getByText('Bash').waitFor()
  await page.locator('.it-text').getByText('Done: the file is written.').waitFor()
  await page.locator('.it-end.is-good').waitFor()
  await page.locator('[data-test=status][data-status=success]').waitFor()
  await tool.getByRole('button').click()
  await page.locator('.it-pre', { hasText: 'made-by-agent.txt' }).waitFor()
  assert.equal(await page.getByText('"type":"assistant"').count(), 0)
  await page.getByRole('button', { name: 'Raw' }).click()
  await lines(page).filter({ hasText: '"type":"assistant"' }).first().waitFor()
  assert.equal(await page.locator('.it-tool').count(), 0)
  await page.getByRole('button', { name: 'Raw' }).click()
  await page.getByRole('tab', { name: 'Prompt' }).click()
  await page.getByText('Do it for Ann.').waitFor()
  await page.getByRole('tab', { name: 'Result' }).click()
  await page.getByRole('tabpanel', { name: 'Result' }).getByText('Done: the file is written.').waitFor()
  await page.getByRole('tab', { name: 'Attempts' }).click()
  await page.getByText('2.1.330').first().waitFor()
  assert.equal((await server.api('GET', `/api/v1/triggers/${t.id}`)).last_execution.status, 'success')
  await settled(page)
  await close(page)
})

const watched = serving({
  tools: {
    claude: standIn('2.1.330 (Claude Code)', 'claude-tool-full.out', 0.7).replace(
      'cat >/dev/null',
      `cat >/dev/null; echo '{"type":"some_future_event","x":1}'`,
    ),
  },
})
watched('agent output: live messages, and unknown lines as text', async ({ server }) => {
  await server.api('POST', '/api/v1/triggers', { name: 'Watched', backend: 'claude', prompt: 'Go.' })
  const page = await open(server)
  await page.goto('/triggers')
  await page.locator('[data-trigger="Watched"]').getByTestId('run').click()
  await page.waitForURL('**/executions/*')
  await page.locator('.it-tool').first().waitFor()
  assert.equal(await page.locator('.it-end').count(), 0, 'it has not ended yet')
  await lines(page).filter({ hasText: 'some_future_event' }).waitFor()
  await page.locator('.it-end').waitFor()
  await close(page)
})
