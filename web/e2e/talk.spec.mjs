// Agents, conversations and messages: each message is sent once, and the page of a
// conversation is complete after every failure of the server.
import assert from 'node:assert/strict'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { serving } from './fixtures.mjs'
import { close, open } from './harness.mjs'
import { until } from './server.mjs'
import { talking } from './talking.mjs'

const test = serving({ tools: { claude: talking }, env: { ANTHROPIC_API_KEY: `sk-ant-${'y'.repeat(40)}` } })
const home = server => server.dir
const helper = (server, more = {}) =>
  server.api('POST', '/api/v1/agents', {
    name: 'helper',
    backend: 'claude',
    role: 'helps',
    env: { HOME: home(server) },
    ...more,
  })
const begin = async server =>
  (await server.api('POST', '/api/v1/conversations', { agent: 'helper', title: 'A talk' })).id
const ends = (server, id, n) =>
  until(
    `${n} turns have ended`,
    async () =>
      (await server.api('GET', `/api/v1/conversations/${id}/events?limit=1000`)).events.filter(
        e => e.event === 'finish',
      ).length >= n,
    60_000,
  )
const answer = (page, n) => page.locator(`[data-number="${n}"] [data-test=answer]`)
const whole = (n, mode) => `answer ${n} ${mode}-a ${mode}-b ${mode}-c end of ${n}, see bold`
const says = (page, n, text) =>
  until(
    `answer ${n} is "${text}"`,
    async () => (await answer(page, n).allTextContents()).join('').replace(/\s+/g, ' ').trim() === text,
    60_000,
  )
async function say(page, text) {
  await page.getByTestId('say').fill(text)
  await page.keyboard.press('Enter')
}

test('conversation: streamed answer, folded tools, cost, by keyboard', async ({ server }) => {
  await helper(server)
  const page = await open(server)
  await page.goto('/agents')
  await page.getByTestId('talk').click()
  await page.getByTestId('first').fill('hello, and wait')
  await page.keyboard.press('Enter')
  await page.waitForURL(/conversations\/conv-/)
  // Pieces appear while the agent is working.
  await answer(page, 1).getByText('answer 1').waitFor()
  await until(
    'the turn is running',
    async () => (await page.getByTestId('standing').allTextContents()).join('') === 'Working',
  )
  writeFileSync(join(home(server), 'go'), '')
  await says(page, 1, whole(1, 'new'))
  await page.locator('[data-ended=success]').waitFor()
  assert.equal(await page.locator('[data-test=answer] strong').textContent(), 'bold')
  const tool = page.getByTestId('tool')
  assert.equal(await tool.getByText('total 0').isVisible(), false)
  await tool.locator('summary').click()
  await tool.getByText('total 0').waitFor()
  assert.equal(await page.getByTestId('thinking').getByText('The person says').isVisible(), false)
  assert.match(await page.getByTestId('turn').textContent(), /cost \$0\.0100/)
  await page.getByRole('link', { name: 'Log' }).click()
  await page.waitForURL(/executions\/exec-/)
  await page.goBack()
  // Shift+Enter starts a new line, Enter sends; messages get one turn after another.
  await page.getByTestId('say').fill('<b>second</b>')
  await page.keyboard.press('Shift+Enter')
  await page.keyboard.type('line')
  await page.keyboard.press('Enter')
  await says(page, 2, whole(2, 'resumed'))
  assert.equal(await page.locator('[data-number="2"] [data-test=said] p').first().textContent(), '<b>second</b>\nline')
  // Attach a file.
  await page
    .getByTestId('files')
    .setInputFiles({ name: 'no/te?.txt', mimeType: 'text/plain', buffer: Buffer.from('hi') })
  await until('the file is stored', async () => !(await page.getByTestId('send').isDisabled()))
  await say(page, 'see the file')
  await page
    .locator('[data-number="3"]')
    .getByText(/te_\.txt/)
    .waitFor()
  await says(page, 3, whole(3, 'resumed'))
  await page.getByTestId('close').click()
  await page.getByTestId('closed').waitFor()
  await say(page, 'open again')
  await says(page, 4, whole(4, 'resumed'))
  assert.equal(await page.getByTestId('closed').count(), 0)
  await close(page)
})

test('conversation: complete after a reload and a server kill', async ({ server }) => {
  await helper(server)
  const id = await begin(server)
  const page = await open(server)
  await page.goto(`/conversations/${id}`)
  await page.getByText('No messages yet').waitFor()
  await say(page, 'one, and wait')
  await answer(page, 1).getByText('answer 1').waitFor()
  await page.reload()
  await answer(page, 1).getByText('answer 1').waitFor()
  await server.kill()
  await page.getByTestId('reconnecting').waitFor()
  // Sent while the server is down: delivered once after it is back.
  await say(page, 'two')
  await page.getByTestId('outgoing').waitFor()
  writeFileSync(join(home(server), 'go'), '')
  await server.up()
  await says(page, 1, whole(1, 'new'))
  await says(page, 2, whole(2, 'resumed'))
  await until('the stream is connected again', async () => !(await page.getByTestId('reconnecting').isVisible()))
  assert.equal(await page.getByTestId('outgoing').count(), 0)
  assert.equal(await page.getByTestId('said').count(), 2)
  assert.equal(await page.getByTestId('turn').count(), 2)
  const before = await page.getByTestId('talk').locator('[data-test=answer]').allTextContents()
  await page.reload()
  await says(page, 2, whole(2, 'resumed'))
  assert.deepEqual(await page.getByTestId('talk').locator('[data-test=answer]').allTextContents(), before)
  assert.deepEqual(
    readFileSync(join(home(server), 'said'), 'utf8')
      .trim()
      .split('\n').length,
    2,
  )
  await close(page)
})

test('conversation: a lost response does not duplicate a message', async ({ server }) => {
  await helper(server)
  const id = await begin(server)
  const page = await open(server)
  await page.goto(`/conversations/${id}`)
  await page.getByText('No messages yet').waitFor()
  let lost = 0
  await page.route('**/messages', async route => {
    if (lost++ > 1) return route.continue()
    await route.fetch()
    await route.abort('connectionreset')
  })
  await say(page, 'only once')
  await until('it was tried again', () => lost > 1)
  await page.reload()
  await says(page, 1, whole(1, 'new'))
  await until('nothing is left to send', async () => lost > 2 && (await page.getByTestId('outgoing').count()) === 0)
  assert.equal(await page.getByTestId('said').count(), 1)
  await ends(server, id, 1)
  assert.equal(
    (await server.api('GET', `/api/v1/conversations/${id}/events?limit=1000`)).events.filter(
      e => e.event === 'message' && e.data.role === 'user',
    ).length,
    1,
  )
  await close(page)
})

test('conversation: interrupt a turn and replace the message', async ({ server }) => {
  await helper(server)
  const id = await begin(server)
  const page = await open(server)
  await page.goto(`/conversations/${id}`)
  await say(page, 'wait for it')
  await answer(page, 1).getByText('answer 1').waitFor()
  await say(page, 'never said')
  await page.getByText('waiting for its turn').waitFor()
  await page.getByTestId('say').fill('something else')
  await page.getByTestId('instead').click()
  await page.getByTestId('dropped').waitFor()
  await page.locator('[data-number="1"] [data-ended=cancelled]').waitFor()
  await page.locator('[data-number="3"] [data-ended=success]').waitFor()
  assert.match(await page.locator('[data-number="2"] [data-test=dropped]').textContent(), /Withdrawn/)
  await say(page, 'and wait again')
  await answer(page, 4)
    .getByText(/answer/)
    .waitFor()
  await page.getByTestId('interrupt').click()
  await page.locator('[data-number="4"] [data-ended=cancelled]').waitFor()
  await close(page)
})

test('conversation: a rate limit shows when the turn resumes', async ({ server }) => {
  await helper(server)
  const id = await begin(server)
  const page = await open(server)
  await page.goto(`/conversations/${id}`)
  await say(page, 'work until the limit')
  const waits = page.getByTestId('waits')
  await waits.waitFor()
  assert.match(await waits.textContent(), /limit/i)
  assert.match(await waits.textContent(), /Resumes automatically/)
  assert.ok(existsSync(join(home(server), 'limited')))
  const [account] = (await server.api('GET', '/api/v1/accounts')).items.filter(a => a.backend === 'claude')
  assert.equal(account.state, 'cooling')
  const other = await open(server)
  await other.goto('/accounts')
  await other.locator(`[data-account="${account.id}"] [data-state=cooling]`).waitFor()
  await other.locator(`[data-account="${account.id}"] [data-state=ready]`).waitFor({ timeout: 90_000 })
  await close(other)
  await page.locator('[data-number="1"] [data-ended=success]').waitFor({ timeout: 90_000 })
  assert.match(await page.getByTestId('turn').textContent(), /2 attempts/)
  await close(page)
})

test('agents: create, YAML, change, delete; groups and inboxes', async ({ server }) => {
  const page = await open(server)
  await page.goto('/agents')
  await page.getByTestId('new-agent').click()
  await page.getByTestId('name').fill('bad name')
  await page.getByTestId('save').click()
  await page.getByTestId('problem').waitFor()
  await page.getByTestId('name').fill('reviewer')
  await page.getByTestId('role').fill('reviews what others write')
  await page.getByTestId('goals').fill('Be brief.')
  await page.getByTestId('add-choice').click()
  await page.getByText('Directory, environment').click()
  await page.getByRole('button', { name: 'Add variable' }).click()
  await page.getByLabel('Name of variable 1').fill('A_TOKEN')
  await page.getByLabel('Value of variable 1', { exact: true }).fill('very secret value')
  await page.getByTestId('save').click()
  await page.waitForURL(/agents\/agt-/)
  await page.getByRole('heading', { level: 1, name: 'reviewer' }).waitFor()
  await page.getByTestId('as-yaml').click()
  const yaml = await page.getByTestId('yaml').inputValue()
  assert.match(yaml, /name: reviewer/)
  assert.match(yaml, /- backend: codex/)
  assert.ok(!yaml.includes('very secret'))
  await page.getByTestId('yaml').fill(`${yaml}\nceiling_usd: 2.5\n`)
  await page.getByTestId('save').click()
  await page.getByText('Saved.').waitFor()
  assert.equal((await server.api('GET', '/api/v1/agents/reviewer')).ceiling_usd, 2.5)
  assert.equal((await server.api('GET', '/api/v1/agents/reviewer')).env.A_TOKEN, '***')
  await page.getByRole('link', { name: 'All agents' }).click()
  await page.locator('[data-agent=reviewer]').waitFor()
  await page.getByTestId('member').selectOption('reviewer')
  await page.getByTestId('list-name').fill('releases')
  await page.getByTestId('join').click()
  await page.getByTestId('lists').getByText('topic:releases').waitFor()
  // A message to the topic appears in the inbox immediately.
  await page.goto('/inbox?of=reviewer')
  await page.getByText('This inbox is empty').waitFor()
  await server.api('POST', '/api/v1/messages', {
    to: 'topic:releases',
    type: 'alert',
    priority: 'high',
    subject: 'A release',
    body: 'Look at **1.2**.',
  })
  await page.getByTestId('messages').getByText('A release').waitFor()
  await page.getByTestId('write').click()
  await page.getByTestId('subject').fill('Second')
  await page.getByTestId('body').fill('And this.')
  await page.getByTestId('send-message').click()
  await page.getByTestId('messages').getByText('Second').waitFor()
  assert.equal(await page.getByTestId('messages').locator('> li').count(), 2)
  await page.locator('[data-seq="1"]').getByTestId('ack').click()
  await page.locator('[data-seq="1"][data-state=read]').waitFor()
  assert.equal((await server.api('GET', '/api/v1/agents/reviewer/inbox')).items[0].state, 'read')
  await page
    .locator('[data-seq="2"]')
    .getByRole('link', { name: /Causes and effects/ })
    .click()
  await page.waitForURL(/chains\/msg-/)
  await page.getByTestId('chain').waitFor()
  await page.goto('/agents')
  await page.getByRole('link', { name: 'reviewer', exact: true }).click()
  await page.getByTestId('delete').click()
  await page.getByTestId('yes').click()
  await page.waitForURL(/agents$/)
  await page.getByText('No agents yet').waitFor()
  await close(page)
})
