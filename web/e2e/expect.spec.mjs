// The outcome contract of a trigger in a real browser.
import assert from 'node:assert/strict'
import { test } from './fixtures.mjs'
import { close, open, overflow, settled, violations } from './harness.mjs'

test('expected outcome: set in the form, refused with its field, shown with evidence', async ({ server }) => {
  const made = await server.api('POST', '/api/v1/triggers', {
    name: 'Claims',
    backend: 'command',
    command: ['sh', '-c', 'echo "The build is fixed."'],
  })
  const page = await open(server)
  await page.goto(`/triggers/${made.id}`)
  await page.locator('#h-expect').click()
  await page.getByTestId('expect-matches').fill('(?i)fixed')
  await page.getByTestId('expect-schema').fill('{"type": "banana"}')
  await page.getByTestId('save').click()
  // The server's error is shown at its field.
  await page.locator('[data-path="expect.result_schema"]').getByText('is not a JSON Schema').waitFor()
  await page.getByTestId('expect-schema').fill('')
  const check = page.locator('[data-path="expect.command"]')
  for (const argument of ['sh', '-c', 'echo looked at 3 files; exit 3']) {
    await check.getByRole('button', { name: 'Add argument of the check' }).click()
    await check.locator('textarea').last().fill(argument)
  }
  await page.getByTestId('save').click()
  await page.getByText('No changes', { exact: true }).waitFor()
  assert.equal(await page.getByTestId('expect-summary').textContent(), 'command, text')
  assert.deepEqual((await server.api('GET', `/api/v1/triggers/${made.id}`)).expect, {
    command: ['sh', '-c', 'echo looked at 3 files; exit 3'],
    text: { matches: '(?i)fixed' },
  })

  const { execution_id: id } = await server.api('POST', `/api/v1/triggers/${made.id}/run`, {})
  assert.equal((await server.ended(id)).status, 'failed')
  await page.goto(`/executions/${id}?tab=result`)
  const outcome = page.getByTestId('outcome')
  await outcome.waitFor()
  assert.equal(await outcome.getByTestId('outcome-verdict').textContent(), 'not met')
  const clauses = await outcome
    .getByTestId('clause')
    .evaluateAll(list => list.map(c => [c.dataset.clause, c.dataset.met]))
  assert.deepEqual(clauses, [
    ['text.matches', 'true'],
    ['command', 'false'],
  ])
  await outcome.getByText('looked at 3 files').waitFor()
  await settled(page)
  assert.deepEqual(await violations(page), [])
  await page.setViewportSize({ width: 390, height: 780 })
  assert.ok((await overflow(page)) <= 0)

  // An empty form removes the contract.
  await page.setViewportSize({ width: 1280, height: 800 })
  await page.goto(`/triggers/${made.id}`)
  await page.locator('#h-expect').click()
  await page.getByTestId('expect-matches').fill('')
  for (let i = 0; i < 3; i++) await check.getByRole('button', { name: 'Remove argument of the check 1' }).click()
  await page.getByTestId('save').click()
  await page.getByText('No changes', { exact: true }).waitFor()
  assert.equal((await server.api('GET', `/api/v1/triggers/${made.id}`)).expect, undefined)
  await close(page)
})
