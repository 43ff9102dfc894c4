// Roles and user management in a real browser.
import assert from 'node:assert/strict'
import { serving, test } from './fixtures.mjs'
import { close, lineText, open, overflow, settled } from './harness.mjs'
import { until } from './server.mjs'
import { fill, pages, tools } from './world.mjs'

/** Presses every button of a page and returns their names. */
async function pressAll(page, path) {
  const pressed = []
  const buttons = page.locator('main button:visible:enabled')
  const here = async () => {
    await page.goto(path)
    await settled(page)
    await page.locator('main details').evaluateAll(list => list.forEach(d => (d.open = true)))
  }
  await here()
  for (let i = 0; i < (await buttons.count()); i++) {
    const b = buttons.nth(i)
    const name = await b.evaluate(el => el.getAttribute('aria-label') || el.textContent.trim() || el.id)
    if (pressed.includes(name)) continue // repeated in each row of a list
    pressed.push(name)
    await b.click({ timeout: 3000 }).catch(() => {})
    await page.keyboard.press('Escape')
    if (page.url() !== new URL(path, page.url()).href) await here()
  }
  return pressed
}

serving({ tools })('viewer: no button leads to a 403', async ({ server }) => {
  const w = await fill(server)
  const { key } = await server.api('POST', '/api/v1/auth/keys', { name: 'viewer', role: 'viewer' })
  const page = await open(server, { key, permissions: ['clipboard-read', 'clipboard-write'] })
  const changes = []
  page.on('request', r => r.method() !== 'GET' && changes.push(`${r.method()} ${new URL(r.url()).pathname}`))
  const seen = new Set()
  for (const path of Object.values(pages(w)).filter(p => !/login|docs/.test(p)))
    for (const name of await pressAll(page, path)) seen.add(name)
  assert.deepEqual(page.refused, [])
  // These requests only read.
  assert.deepEqual(
    changes.filter(c => !/\/(preview|match)$/.test(c)),
    [],
  )
  const all = [...seen].join('\n')
  for (const no of [
    /^run/im,
    /^save/im,
    /delete/i,
    /^create/im,
    /replay/i,
    /revoke/i,
    /generate/i,
    /cancel/i,
    /^remove/im,
    /^add /im,
    /send a test/i,
    /^edit/im,
  ])
    assert.doesNotMatch(all, no)
  assert.equal(await page.getByRole('switch').count(), 0)
  await page.goto('/triggers/new')
  await page.getByText('Only admins can create triggers').waitFor()
  await close(page)
})

serving({ tools })('operator: run, cancel, retry, replay and test without a 403', async ({ server }) => {
  const w = await fill(server)
  const { key } = await server.api('POST', '/api/v1/auth/keys', { name: 'operator', role: 'operator' })
  const page = await open(server, { key, permissions: ['clipboard-read', 'clipboard-write'] })
  await page.goto('/triggers')
  await page.locator('[data-trigger="Alerts"]').getByTestId('run').click()
  await page.waitForURL('**/executions/*')
  await page.locator('[data-test=status][data-status=success]').waitFor()
  await page.getByTestId('retry').click()
  await page.waitForURL(u => !u.pathname.endsWith(w.running))
  await page.goto(`/executions/${w.running}`)
  await page.getByTestId('cancel').click()
  await page.getByTestId('yes').click()
  await page.locator('[data-test=status][data-status=cancelled]').waitFor()
  await page.goto(`/deliveries/${w.delivery}`)
  await page.getByTestId('replay').click()
  await page.getByTestId('yes').click()
  await page.waitForURL(u => !u.pathname.endsWith(w.delivery))
  await page.goto(`/triggers/${w.hook.id}`)
  await page.getByTestId('hook-test').click()
  await page.getByTestId('send-test').click()
  await page.getByTestId('test-answer').locator('[data-verdict=ignored]').waitFor()
  const seen = new Set()
  for (const path of [
    '/triggers',
    `/triggers/${w.agent.id}`,
    '/deliveries',
    '/schedule',
    '/settings',
    `/executions/${w.failed}`,
  ])
    for (const name of await pressAll(page, path)) seen.add(name)
  assert.deepEqual(page.refused, [])
  for (const no of [/^save/im, /delete/i, /^create/im, /revoke/i, /generate/i, /^add /im, /^edit/im])
    assert.doesNotMatch([...seen].join('\n'), no)
  assert.equal(await page.getByRole('switch').count(), 0)
  await close(page)
})

test('users: create, rename, set password, disable, end sessions', async ({ server }) => {
  await server.api('POST', '/api/v1/auth/users', { name: 'ann', password: 'correct horse battery', role: 'admin' })
  const logIn = async (page, name, password) => {
    await page.goto('/login')
    await page.getByLabel('Name').fill(name)
    await page.getByLabel('Password').fill(password)
    await page.getByRole('button', { name: 'Log in' }).click()
  }
  const ann = await open(server, { key: '' })
  await logIn(ann, 'ann', 'wrong one, this')
  await ann.getByRole('alert').waitFor()
  await logIn(ann, 'ann', 'correct horse battery')
  await ann.getByRole('heading', { name: 'Overview' }).waitFor()
  await ann.goto('/settings/users')
  const form = ann.locator('main form').first()
  await form.getByLabel('Name').fill('bob')
  await form.getByLabel('Password').fill('short')
  await form.getByLabel('Role').selectOption('operator')
  await form.getByRole('button', { name: 'Create user' }).click()
  await form
    .getByText(/10 characters/)
    .nth(1)
    .waitFor()
  await form.getByLabel('Password').fill('battery staple horse')
  await form.getByRole('button', { name: 'Create user' }).click()
  await ann.getByTestId('users').getByText('bob').waitFor()

  const bob = await open(server, { key: '' })
  await logIn(bob, 'bob', 'battery staple horse')
  await bob.getByRole('heading', { name: 'Overview' }).waitFor()
  await bob.goto('/settings')
  await bob.getByTestId('sessions').getByText('this session').waitFor()
  assert.equal(await bob.getByTestId('users').count(), 0)
  // Ann renames him and sets a new password, which ends his sessions.
  await ann.reload()
  await ann.getByTestId('all-sessions').getByText(/^bob,/).waitFor()
  await ann.getByRole('button', { name: 'Edit bob' }).click()
  await ann.getByTestId('user-name').fill('rob')
  await ann.getByTestId('user-password').fill('a fresh pass phrase')
  await ann.getByTestId('user-save').click()
  await ann.getByTestId('users').getByText('rob').waitFor()
  await until(
    'his session has ended',
    async () =>
      (await ann
        .getByTestId('all-sessions')
        .getByText(/^(bob|rob),/)
        .count()) === 0,
  )
  await bob.goto('/executions')
  await bob.waitForURL(/\/login/)
  await logIn(bob, 'rob', 'a fresh pass phrase')
  await bob.waitForURL(u => !u.pathname.startsWith('/login'))
  // End his session, make him a viewer, then disable him.
  await ann.reload()
  await ann.getByRole('button', { name: /End the session of rob/ }).click()
  await until(
    'his session has ended',
    async () => (await ann.getByTestId('all-sessions').getByText(/^rob,/).count()) === 0,
  )
  await bob.goto('/triggers')
  await bob.waitForURL(/\/login/)
  await logIn(bob, 'rob', 'a fresh pass phrase')
  await ann.getByLabel('Role of rob').selectOption('viewer')
  await until(
    'he is a viewer',
    async () =>
      (
        await bob
          .context()
          .request.get('/api/v1/auth/me')
          .then(r => r.json())
      ).role === 'viewer',
  )
  await ann.getByRole('button', { name: 'Disable rob' }).click()
  await ann.getByText('cannot log in').waitFor()
  await until('he is logged out', async () => (await bob.context().request.get('/api/v1/auth/me')).status() === 401)
  await ann.getByRole('button', { name: 'Delete rob' }).click()
  await ann.getByTestId('yes').click()
  await until('he is deleted', async () => (await ann.getByTestId('users').getByText('rob').count()) === 0)
  // The last admin cannot be demoted.
  await ann.getByLabel('Role of ann').selectOption('viewer')
  await ann.locator('[role=status], [role=alert]').getByText(/admin/).first().waitFor()
  // Change her own password.
  await ann.goto('/settings/sessions')
  await ann.getByLabel('Current password').fill('not this one')
  await ann.getByLabel('New password').fill('an even better horse')
  await ann.getByRole('button', { name: 'Change password' }).click()
  await ann.getByText('is not your current password').waitFor()
  await ann.getByLabel('Current password').fill('correct horse battery')
  await ann.getByRole('button', { name: 'Change password' }).click()
  await ann.getByText('Password changed').waitFor()
  await ann.context().clearCookies()
  await logIn(ann, 'ann', 'an even better horse')
  await ann.getByRole('heading', { name: 'Overview' }).waitFor()
  await close(bob)
  await close(ann)
})

test('keyboard only: log in, open, search the log, cancel', async ({ server }) => {
  await server.api('POST', '/api/v1/auth/users', { name: 'kay', password: 'no mouse at all here', role: 'admin' })
  const id = await server.run('By keyboard', 'seq -f "line %g" 1 500; sleep 600')
  const page = await open(server, { key: '' })
  const press = key => page.keyboard.press(key)
  const focused = what => page.evaluate(`(e => ${what})(document.activeElement)`)
  const tabTo = async (what, by = 'Tab') => {
    for (let i = 0; i < 60; i++) {
      if (await focused(what)) return
      await press(by)
    }
    throw new Error(`the keyboard does not come to ${what}`)
  }
  await page.goto('/login')
  await tabTo("e.name === 'name'")
  await page.keyboard.type('kay')
  await press('Tab')
  await page.keyboard.type('no mouse at all here')
  await press('Enter')
  await page.getByRole('heading', { name: 'Overview' }).waitFor()
  await page.getByTestId('running').waitFor()
  await tabTo(`e.getAttribute('href') === '/executions/${id}'`)
  await press('Enter')
  await lineText(page, 500).waitFor()
  await tabTo("e.classList.contains('lv')")
  await press('/')
  await page.keyboard.type('line 77')
  await press('Enter')
  await page.getByTestId('hits').getByText('1 of').waitFor()
  await page.locator('.lv-hit .lv-x', { hasText: 'line 77' }).waitFor()
  await press('Escape')
  await until('the log has the focus again', () => focused("e.classList.contains('lv')"))
  await tabTo("e.dataset.test === 'cancel'", 'Shift+Tab')
  await press('Enter')
  await tabTo("e.dataset.test === 'yes'")
  await press('Enter')
  await page.locator('[data-test=status][data-status=cancelled]').waitFor()
  // The focus is visible.
  await page.goto('/triggers')
  await settled(page)
  await press('Tab')
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Skip to content')
  assert.ok((await overflow(page)) <= 0)
  await close(page)
})
