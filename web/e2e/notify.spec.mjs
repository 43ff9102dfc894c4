// Channels, test messages and the rules of a trigger in a real browser.
import assert from 'node:assert/strict'
import { test } from './fixtures.mjs'
import { close, open } from './harness.mjs'

test('notifications: create a channel, send a test, set a rule of a trigger', async ({ server }) => {
  const page = await open(server)
  await page.goto('/settings/notifications')
  await page.getByText('No channels yet.').waitFor()
  await page.getByTestId('new-channel').click()
  await page.getByTestId('channel-name').fill('team')
  // Errors of the server are shown in the form.
  await page.getByTestId('channel-url').fill('https://169.254.169.254/')
  await page.getByTestId('channel-save').click()
  await page.getByTestId('channel-problem').waitFor()
  assert.match(await page.getByTestId('channel-problem').textContent(), /not a public address/)
  await page.getByTestId('channel-url').fill('https://hooks.agented.invalid/services/T000')
  await page.getByTestId('event-backup').uncheck()
  await page.getByTestId('channel-digest').fill('0 7 * * *')
  await page.getByTestId('channel-save').click()
  const row = page.locator('[data-channel=team]')
  await row.waitFor()
  assert.match(await row.textContent(), /slack: failed/)
  assert.match(await row.textContent(), /digest 0 7 \* \* \*/)
  // The button shows what the other side answered: here, that it does not exist.
  await row.getByTestId('test-channel').click()
  await row.getByTestId('test-answer').waitFor()
  assert.match(await row.getByTestId('test-answer').textContent(), /^Not accepted: /)
  const sent = page.getByTestId('notifications')
  await sent.getByText('gave up').waitFor()
  assert.ok(!(await page.content()).includes('T000'), 'a URL is never shown')
  // A rule of a trigger survives saving and loading.
  const made = await server.api('POST', '/api/v1/triggers', { name: 'Noisy', backend: 'command', command: ['true'] })
  await page.goto(`/triggers/${made.id}`)
  await page.locator('#h-notify').click()
  await page.getByTestId('notify-add').click()
  await page.getByTestId('notify-kind').selectOption('needs_person')
  await page.getByTestId('notify-to-team').check()
  await page.getByTestId('save').click()
  await page.getByText('1 rule', { exact: true }).waitFor()
  const stored = await server.api('GET', `/api/v1/triggers/${made.id}`)
  assert.deepEqual(stored.notify, { needs_person: ['team'] })
  await close(page)
})
