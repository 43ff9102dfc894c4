// Forms that lose nothing: two editors, sessions that end, drafts.
import assert from 'node:assert/strict'
import { test } from './fixtures.mjs'
import { close, open, settled, violations } from './harness.mjs'
import { until } from './server.mjs'

const password = 'correct horse battery'
/** Opens a page of a logged-in user; `context` opens another tab of the same browser. */
async function userPage(server, name = 'ann') {
  await server
    .api('POST', '/api/v1/auth/users', { name, password, role: 'admin' })
    .catch(e => assert.match(String(e), /409/))
  const page = await open(server, { key: '' })
  const r = await page.request.post('/api/v1/auth/login', { data: { name, password } })
  assert.equal(r.status(), 200)
  return page
}
const agentTrigger = server =>
  server.api('POST', '/api/v1/triggers', {
    name: 'Nightly',
    backend: 'claude',
    prompt: 'old prompt',
    permission: 'edit',
  })
const prompt = page => page.locator('[data-path=prompt] textarea')

test('conflict: a change elsewhere is shown, and saving asks which one stays', async ({ server }) => {
  const t = await agentTrigger(server)
  const page = await userPage(server)
  const stored = () => server.api('GET', `/api/v1/triggers/${t.id}`)
  await page.goto(`/triggers/${t.id}`)
  await settled(page)
  // Without changes, the form follows.
  await server.api('PATCH', `/api/v1/triggers/${t.id}`, { prompt: 'second prompt' })
  await until('the form shows the newer version', async () => (await prompt(page).inputValue()) === 'second prompt')
  // With changes, a banner reports it and the form keeps them.
  await page.locator('[data-path=permission] select').selectOption('full')
  await server.api('PATCH', `/api/v1/triggers/${t.id}`, { prompt: 'prompt by tab A' })
  await page.getByTestId('elsewhere').waitFor()
  await page.getByTestId('save').click()
  await page.getByTestId('conflict-keep').waitFor()
  const dialog = page.locator('dialog[open]')
  assert.match(await dialog.locator('[data-field=prompt]').innerText(), /prompt by tab A/)
  assert.deepEqual(await violations(page), [])
  assert.equal((await stored()).permission, 'edit')
  await page.getByTestId('conflict-keep').click()
  await page.getByText('Saved.').waitFor()
  const both = await stored()
  assert.deepEqual([both.prompt, both.permission], ['prompt by tab A', 'full'])
  assert.equal(await prompt(page).inputValue(), 'prompt by tab A')

  // The same field: take theirs.
  await prompt(page).fill('my prompt')
  await server.api('PATCH', `/api/v1/triggers/${t.id}`, { prompt: 'their prompt' })
  await page.getByTestId('elsewhere').waitFor()
  await page.getByTestId('elsewhere-compare').click()
  await dialog.getByText('changed by both').waitFor()
  await page.getByTestId('conflict-take').click()
  await until('their prompt is shown', async () => (await prompt(page).inputValue()) === 'their prompt')
  assert.equal((await stored()).prompt, 'their prompt')
  await close(page)
})

test('conflict: agents, accounts, budgets, users and secrets', async ({ server }) => {
  const page = await userPage(server)
  await server.api('POST', '/api/v1/auth/users', { name: 'bob', password, role: 'viewer' })
  const agent = await server.api('POST', '/api/v1/agents', { name: 'writer', backend: 'claude', role: 'writes' })
  const account = await server.api('POST', '/api/v1/accounts', { backend: 'claude', name: 'spare', config: '/srv/x' })
  const budget = await server.api('POST', '/api/v1/budgets', { name: 'all', limit_usd: 5 })
  await server.api('POST', '/api/v1/secrets', { name: 'token', value: 'a-long-enough-value' })
  const users = await server.api('GET', '/api/v1/auth/users')
  const bob = users.items.find(u => u.name === 'bob')
  const cases = [
    {
      at: `/agents/${agent.id}`,
      path: `/api/v1/agents/${agent.id}`,
      edit: () => page.locator('[data-path=goals] textarea').fill('new goals'),
      theirs: { role: 'reviews' },
      save: () => page.getByTestId('save').click(),
      both: v => v.goals === 'new goals' && v.role === 'reviews',
    },
    {
      at: '/accounts',
      path: `/api/v1/accounts/${account.id}`,
      edit: async () => {
        await page.getByRole('button', { name: /^Edit.*spare/ }).click()
        await page.locator('dialog[open]').getByLabel('Name').fill('reserve')
      },
      theirs: { max_concurrent: 3 },
      save: () => page.locator('dialog[open] button[type=submit]').click(),
      both: v => v.name === 'reserve' && v.max_concurrent === 3,
    },
    {
      at: '/usage',
      path: `/api/v1/budgets/${budget.id}`,
      edit: async () => {
        await page.getByRole('button', { name: /^Edit/ }).first().click()
        await page.locator('dialog[open]').getByLabel('Name').fill('everything')
      },
      theirs: { limit_usd: 7 },
      save: () => page.locator('dialog[open] button[type=submit]').click(),
      both: v => v.name === 'everything' && v.limit_usd === 7,
    },
    {
      at: '/settings/secrets',
      path: '/api/v1/secrets/token',
      edit: async () => {
        await page
          .locator('[data-secret=token]')
          .getByRole('button', { name: /^(Edit|Change)/ })
          .click()
        await page
          .locator('dialog[open]')
          .getByLabel(/these triggers/)
          .fill('nightly')
      },
      theirs: { repositories: ['o/n'] },
      save: () => page.locator('dialog[open] button[type=submit]').click(),
      both: v => v.triggers[0] === 'nightly' && v.repositories[0] === 'o/n',
    },
    {
      at: '/settings/users',
      path: `/api/v1/auth/users/${bob.id}`,
      edit: async () => {
        await page.getByRole('button', { name: 'Edit bob' }).click()
        await page.getByTestId('user-name').fill('robert')
      },
      theirs: { role: 'operator' },
      save: () => page.getByTestId('user-save').click(),
      both: v => v.name === 'robert' && v.role === 'operator',
    },
  ]
  for (const c of cases) {
    await page.goto(c.at)
    await settled(page)
    await c.edit()
    await server.api('PATCH', c.path, c.theirs)
    await c.save()
    await page.getByTestId('conflict-keep').click()
    await until(`${c.at}: both changes are stored`, async () => c.both(await server.api('GET', c.path)))
  }
  await close(page)
})

test('session ended: a login over the page, the save is repeated, drafts stay', async ({ server }) => {
  const t = await agentTrigger(server)
  const page = await userPage(server)
  await page.goto(`/triggers/${t.id}`)
  await settled(page)
  await prompt(page).fill('twenty minutes of work')
  // The session ends as in another browser: by its removal.
  const mine = (await (await page.request.get('/api/v1/auth/me')).json()).session_id
  await server.api('DELETE', `/api/v1/auth/sessions/${mine}`)
  await page.getByTestId('login-dialog').waitFor()
  assert.deepEqual(await violations(page), [])
  await page.getByTestId('login-password').fill('wrong password')
  await page.getByTestId('login-submit').click()
  await page.locator('[data-test=login-dialog] [role=alert]').waitFor()
  await page.keyboard.press('Escape') // not now
  await page.getByTestId('login-dialog').waitFor({ state: 'hidden' })
  assert.equal(await prompt(page).inputValue(), 'twenty minutes of work')
  await page.getByTestId('save').click()
  await page.getByTestId('login-password').fill(password)
  await page.getByTestId('login-submit').click()
  await page.getByText('Saved.').waitFor()
  assert.equal((await server.api('GET', `/api/v1/triggers/${t.id}`)).prompt, 'twenty minutes of work')
  assert.equal(new URL(page.url()).pathname, `/triggers/${t.id}`)

  // A draft survives a reload.
  await prompt(page).fill('an unsaved draft')
  page.once('dialog', d => d.accept())
  await page.reload()
  await page.getByTestId('draft').waitFor()
  assert.equal(await prompt(page).inputValue(), 'twenty minutes of work')
  await page.getByTestId('draft-restore').click()
  assert.equal(await prompt(page).inputValue(), 'an unsaved draft')
  await page.getByTestId('save').click()
  await page.getByText('Saved.').last().waitFor()
  await page.reload()
  await settled(page)
  assert.equal(await page.getByTestId('draft').count(), 0)
  await close(page)
})

test('logout in one tab locks the others until the next login', async ({ server }) => {
  const t = await agentTrigger(server)
  const page = await userPage(server)
  await page.goto(`/triggers/${t.id}`)
  await settled(page)
  await prompt(page).fill('not saved yet')
  const other = await page.context().newPage()
  await other.goto('/')
  await settled(other)
  await other.getByTestId('user-menu').click()
  await other.getByRole('button', { name: 'Log out' }).click()
  await other.waitForURL('**/login**')
  await page.getByTestId('login-dialog').waitFor()
  assert.equal(await prompt(page).isVisible(), false)
  await page.keyboard.press('Escape')
  assert.equal(await page.getByTestId('login-dialog').isVisible(), true)
  await page.getByTestId('login-name').fill('ann')
  await page.getByTestId('login-password').fill(password)
  await page.getByTestId('login-submit').click()
  await page.getByTestId('login-dialog').waitFor({ state: 'hidden' })
  assert.equal(await prompt(page).inputValue(), 'not saved yet')
  await close(page)
})
