// Triggers, deliveries, schedules and settings in a real browser.
import assert from 'node:assert/strict'
import { createHmac } from 'node:crypto'
import { until } from './server.mjs'

const command = (script, more = {}) => ({ backend: 'command', command: ['sh', '-c', script], ...more })

export function manage({ test, open, close, violations }) {
  test('a trigger is made in the form, fired by a signed call, and watched to its end', async server => {
    const page = await open(server, { permissions: ['clipboard-read', 'clipboard-write'] })
    await page.goto('/triggers')
    await page.getByTestId('new-trigger').click()
    await page.getByTestId('backend').selectOption('command')
    await page.getByRole('textbox', { name: 'argument 3' }).fill('echo got it; sleep 2; echo done')
    await page.getByTestId('add-webhook').click()
    await page.getByRole('button', { name: 'Generate' }).click()
    const secret = await page.getByTestId('hook-secret').inputValue()
    assert.match(secret, /^[0-9a-f]{64}$/)
    await page.getByRole('button', { name: 'Copy the secret' }).click()
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), secret)
    // What the server refuses stands at its field.
    await page.getByTestId('save').click()
    await page.getByTestId('problem').waitFor()
    assert.match(await page.locator('[data-path=name]').textContent(), /is required/)
    await page.getByTestId('name').fill('From outside')
    await page.getByTestId('save').click()
    await page.waitForURL(/\/triggers\/trg-/)
    await page.getByRole('heading', { name: 'From outside' }).waitFor()
    const address = await page.getByTestId('hook-address').inputValue()
    assert.equal(new URL(address).origin, server.url)
    assert.equal(await page.getByTestId('hook-secret').inputValue(), '', 'a stored secret is never shown')
    const body = JSON.stringify({ level: 'error' })
    const r = await fetch(address, { method: 'POST', body, headers: { 'Content-Type': 'application/json', 'X-Webhook-Signature-256': `sha256=${createHmac('sha256', secret).update(body).digest('hex')}` } })
    assert.equal(r.status, 202)
    const { delivery_id, execution_ids } = await r.json()
    await page.goto('/triggers')
    const row = page.locator('[data-trigger="From outside"]')
    await row.locator('[data-status]').click()
    await page.waitForURL(`**/executions/${execution_ids[0]}`)
    await page.locator('[data-test=status][data-status=success]').waitFor()
    await page.locator('.lv-row', { hasText: 'done' }).waitFor()
    // The delivery says so too, and can be replayed.
    await page.goto('/deliveries')
    await page.locator(`a[href="/deliveries/${delivery_id}"]`).click()
    await page.getByText('From outside').first().waitFor()
    assert.match(await page.getByTestId('body').textContent(), /"level": "error"/)
    await page.getByTestId('try').click()
    await page.getByTestId('try-answer').getByText('fires').waitFor()
    await page.getByTestId('replay').click()
    await page.getByTestId('yes').click()
    await page.waitForURL(u => u.pathname.startsWith('/deliveries/dlv-') && !u.pathname.endsWith(delivery_id))
    await page.getByText('Replay by').waitFor()
    await close(page)
  })

  test('the form checks prompts, previews schedules, and is the YAML', async server => {
    const page = await open(server)
    await page.goto('/triggers/new')
    await page.getByTestId('name').fill('Checked')
    const prompt = page.getByTestId('prompt')
    await prompt.click()
    await page.keyboard.type('Look at {bran')
    await page.getByRole('option', { name: /head branch/ }).waitFor()
    await page.keyboard.press('Enter')
    assert.equal(await prompt.inputValue(), 'Look at {branch}')
    await page.keyboard.type(' and {mesage}')
    await page.getByTestId('prompt-wrong').getByRole('button', { name: /message/ }).click()
    assert.equal(await prompt.inputValue(), 'Look at {branch} and {message}')
    await page.getByTestId('prompt-wrong').waitFor({ state: 'detached' })
    await page.getByTestId('add-schedule').click()
    await page.getByLabel('Cron expression').fill('61 * * * *')
    await page.getByTestId('preview').getByText('cron').waitFor()
    await page.getByLabel('Cron expression').fill('30 2 * 3 SUN')
    await page.getByLabel('Time zone').fill('Europe/Berlin')
    // The last Sunday of March is among them.
    await page.getByTestId('clock-change').waitFor()
    await page.getByTestId('as-yaml').click()
    const yaml = page.getByTestId('yaml')
    const text = await yaml.inputValue()
    assert.match(text, /^name: Checked\nbackend: claude\nprompt: /)
    assert.match(text, /cron: 30 2 \* 3 SUN/)
    await yaml.fill(`${text}nonsense: 1\n`)
    await page.getByText('nonsense is not a field.').waitFor()
    await yaml.fill(text.replace('Checked', 'Pasted').replace('backend: claude', 'backend: codex'))
    await page.getByText('nonsense is not a field.').waitFor({ state: 'detached' })
    await page.getByTestId('save').click()
    await page.getByRole('heading', { name: 'Pasted' }).waitFor()
    const [t] = (await server.api('GET', '/api/v1/triggers?name=Pasted')).items
    assert.equal(t.backend, 'codex')
    assert.equal(t.schedules[0].zone, 'Europe/Berlin')
    // A variable keeps its value through a change that does not name it.
    await server.api('PATCH', `/api/v1/triggers/${t.id}`, { env: { API_TOKEN: 'a-value-nobody-sees' } })
    await page.reload()
    await page.getByText('is kept and never shown').waitFor()
    assert.doesNotMatch(await page.content(), /a-value-nobody-sees/)
    await page.getByTestId('name').fill('Renamed')
    await page.getByTestId('name').press('Control+s')
    await page.getByText('No changes').waitFor()
    assert.deepEqual((await server.api('GET', `/api/v1/triggers/${t.id}`)).env, { API_TOKEN: '***' })
    // Off, and gone.
    await page.goto('/triggers')
    await page.getByRole('switch', { name: 'Renamed is on' }).click()
    await page.getByText('is off').waitFor()
    await page.getByRole('link', { name: 'Renamed' }).click()
    await page.getByTestId('delete').click()
    await page.getByTestId('yes').click()
    await page.waitForURL('**/triggers')
    await page.getByText('There is no trigger yet').waitFor()
    await close(page)
  })

  test('keys are shown once, and what was done stands in the audit', async server => {
    const page = await open(server)
    await page.goto('/settings/keys')
    await page.getByLabel('Name').fill('from the page')
    await page.getByTestId('create-key').click()
    const key = await page.getByLabel('The new key').inputValue()
    const asks = () => fetch(`${server.url}/api/v1/auth/me`, { headers: { 'X-API-Key': key } }).then(r => r.status)
    assert.equal(await asks(), 200)
    await page.reload()
    await page.getByTestId('keys').getByText('from the page').waitFor()
    assert.ok(!(await page.content()).includes(key))
    await page.getByRole('button', { name: 'Revoke from the page' }).click()
    await page.getByTestId('yes').click()
    await until('it is refused', async () => (await asks()) === 401)
    await page.goto('/settings/audit')
    await page.getByTestId('audit').getByText('key.revoke').first().waitFor()
    await page.goto('/settings/config')
    await page.getByText('AGENTED_BIND', { exact: true }).waitFor()
    await close(page)
  })

  async function fill(server) {
    const hook = await server.api('POST', '/api/v1/triggers', { name: 'alerts', ...command('echo got it'), webhooks: [{ source: 'webhook', auth: { kind: 'bearer' }, secret: 'a-long-and-random-secret', match: { conditions: { all: [{ field: 'level', op: 'equals', value: 'error' }] } } }] })
    const agent = await server.api('POST', '/api/v1/triggers', { name: 'A review with quite a long name, as people have them', backend: 'claude', prompt: '{branch} {message}', env: { A_TOKEN: 'x', HOME: null }, schedules: [{ cron: '30 2 * * *', zone: 'Europe/Berlin' }, { every: '6h' }], webhooks: [{ source: 'github', match: { events: ['push'] } }] })
    const call = await fetch(`${server.url}${hook.webhook_url}`, { method: 'POST', body: '{"level":"error"}', headers: { 'Content-Type': 'application/json', Authorization: 'Bearer a-long-and-random-secret' } })
    await fetch(`${server.url}${hook.webhook_url}`, { method: 'POST', body: '{}' })
    return ['/triggers', `/triggers/${hook.id}`, `/triggers/${agent.id}`, '/deliveries', `/deliveries/${(await call.json()).delivery_id}`, '/schedule', '/schedule?view=all', '/schedule?view=ledger', '/settings', '/settings/sessions']
  }

  test('a viewer of triggers, deliveries and settings sees no button that would answer 403', async server => {
    const paths = await fill(server)
    const { key } = await server.api('POST', '/api/v1/auth/keys', { name: 'viewer', role: 'viewer' })
    const page = await open(server, { key })
    const refused = []
    page.on('response', r => r.status() === 403 && refused.push(r.url()))
    for (const path of [...paths, '/triggers/new', '/settings/keys', '/settings/users', '/settings/config', '/settings/audit']) {
      await page.goto(path)
      await page.locator('h1').waitFor()
      await page.waitForTimeout(400)
      for (const name of [/^run/i, /^save/i, /delete/i, /create/i, /replay/i, /revoke/i, /^generate/i]) {
        for (const b of await page.getByRole('button', { name }).all()) assert.ok(await b.isDisabled(), `${path} has a button ${name}`)
      }
      assert.equal(await page.getByRole('switch').and(page.locator(':enabled')).count(), 0, `${path} has a switch`)
      assert.equal(await page.getByTestId('new-trigger').count(), 0, path)
    }
    assert.deepEqual(refused, [])
    await close(page)
  })

  test('axe finds no serious violation on the pages that change things', async server => {
    const paths = await fill(server)
    for (const scheme of ['light', 'dark']) {
      for (const [width, height] of [[1280, 800], [360, 740]]) {
        const page = await open(server, { scheme, width, height })
        for (const path of [...paths, '/triggers/new', '/settings/keys', '/settings/users', '/settings/config', '/settings/audit']) {
          await page.goto(path)
          await page.locator('h1').waitFor()
          await page.waitForTimeout(500)
          await page.locator('main details').evaluateAll(list => list.forEach(d => (d.open = true)))
          assert.deepEqual(await violations(page), [], `${path} ${scheme} ${width}`)
          const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth)
          assert.ok(wide <= 0, `${path} is ${wide} px wider than a screen of ${width}`)
        }
        await close(page)
      }
    }
  })
}
