// Accounts, pauses and their questions, budgets, usage, and the chain of causes.
import assert from 'node:assert/strict'
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { serving } from './fixtures.mjs'
import { close, open, overflow, settled, sticksOut, violations } from './harness.mjs'
import { until } from './server.mjs'
import { talking } from './talking.mjs'
import { fill, tools } from './world.mjs'

const options = { tools: { claude: talking } }

/** Checks accessibility, with some frames of patience after a theme change. */
async function sound(page, what) {
  let bad = await violations(page)
  for (let frames = 0; bad.length > 0 && frames < 5; frames++) {
    await page.evaluate(() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done))))
    bad = await violations(page)
  }
  assert.deepEqual(bad, [], what)
}

// A CLI that exits with an error before its model responds.
const broken = `#!/bin/sh
[ "$1" = --version ] && { echo "2.1.330 (Claude Code)"; exit; }
cat >/dev/null
echo "the proxy does not accept this model" >&2
exit 1
`
serving({ tools: { claude: broken } })('accounts: a failed test is shown in place', async ({ server }) => {
  await server.api('POST', '/api/v1/accounts', {
    backend: 'claude',
    name: 'proxy',
    credentials: { ANTHROPIC_API_KEY: 'sk-zzzz-1234567890' },
  })
  const page = await open(server)
  await page.goto('/accounts')
  const card = page.locator('[data-account^=acc-]')
  await card.getByText('Not tried', { exact: true }).waitFor()
  await card.getByTestId('probe').click()
  await card.getByText('The test failed').waitFor()
  await card.locator('[data-check=refused]').waitFor()
  assert.match(await card.getByTestId('refused').textContent(), /does not accept this model/)
  // The program of another CLI is missing: its card has the command that installs it.
  const other = page.locator('[data-account=default-opencode]')
  await other.locator('[data-check=not_installed]').waitFor()
  await other.getByTestId('copy-fix').waitFor()
  await close(page)
})

serving(options)('accounts: create, test, disable, delete; viewers see no buttons', async ({ server }) => {
  const page = await open(server)
  await page.goto('/accounts')
  await page.getByTestId('new-account').click()
  await page.getByTestId('account-name').fill('team a')
  await page.getByLabel('Value of variable 1').fill(`sk-ant-${'z'.repeat(40)}`)
  await page.getByTestId('account-save').click()
  await page.getByTestId('account-problem').waitFor()
  await page.getByTestId('account-name').fill('team-a')
  await page.getByTestId('account-cap').fill('2')
  await page.getByTestId('account-save').click()
  const card = page.locator('[data-account^=acc-]')
  await card.getByText('team-a').waitFor()
  await card.getByText('ANTHROPIC_API_KEY').waitFor()
  await card.getByText('0 of 2').waitFor()
  // The credential is encrypted; neither the page nor the API returns it.
  assert.ok(!(await page.content()).includes('zzzz'))
  await card.getByTestId('edit').click()
  await page.getByText('stored, never shown').waitFor()
  await page.getByTestId('account-cap').fill('3')
  await page.getByTestId('account-save').click()
  await card.getByText('0 of 3').waitFor()
  const [account] = (await server.api('GET', '/api/v1/accounts')).items.filter(a => !a.default)
  assert.equal(account.credentials.ANTHROPIC_API_KEY, '***')
  // The account is not shown as working before an attempt has shown it; the result of a test is shown in place.
  await card.getByText('Not tried', { exact: true }).waitFor()
  await card.getByTestId('probe').click()
  await card.getByText('The test succeeded.').waitFor()
  await card.locator('[data-check=works]').waitFor()
  const [tested] = (await server.api('GET', '/api/v1/accounts')).items.filter(a => !a.default)
  assert.equal(tested.check.result, 'works')
  await card.getByRole('link', { name: 'Test run' }).click()
  await page.waitForURL(/executions\/exec-/)
  await page.locator('[data-test=status][data-status=success]').waitFor()
  await page.goBack()
  await card.getByRole('switch').click()
  await card.getByText('Disabled', { exact: true }).waitFor()
  const { key } = await server.api('POST', '/api/v1/auth/keys', { name: 'look', role: 'viewer' })
  const viewer = await open(server, { key })
  for (const path of ['/accounts', '/agents', '/conversations', '/usage', '/inbox']) {
    await viewer.goto(path)
    await settled(viewer)
    const texts = await viewer.locator('main button:visible').allTextContents()
    assert.deepEqual(
      texts.filter(t => !/^(Cost|Tokens)$/.test(t.trim())),
      [],
      path,
    )
  }
  assert.deepEqual(viewer.refused, [])
  await close(viewer)
  await card.getByTestId('delete').click()
  await page.getByTestId('yes').click()
  await until('it is removed', async () => (await card.count()) === 0)
  await close(page)
})

serving(options)('pause: manual pause, and a question at the cost ceiling', async ({ server }) => {
  const id = await server.run('Long', 'i=0; while [ $i -lt 600 ]; do i=$((i+1)); echo line $i; sleep 0.1; done')
  const page = await open(server)
  await page.goto(`/executions/${id}`)
  await page.getByTestId('pause').click()
  await page.getByTestId('paused').waitFor()
  assert.equal((await server.execution(id)).pause.question, '')
  await page.getByTestId('continue').click()
  await until('it continues', async () => (await page.getByTestId('paused').count()) === 0)
  assert.equal((await server.execution(id)).pause, undefined)
  await page.getByTestId('cancel').click()
  await page.getByTestId('yes').click()
  await page.locator('[data-test=status][data-status=cancelled]').waitFor()

  // An execution over its ceiling is paused, in the conversation and on its own page.
  await server.api('POST', '/api/v1/agents', {
    name: 'helper',
    backend: 'claude',
    ceiling_usd: 2,
    env: { HOME: server.dir },
  })
  const talk = await server.api('POST', '/api/v1/conversations', { agent: 'helper', message: 'something dear' })
  await page.goto(`/conversations/${talk.id}`)
  await page.getByTestId('turn').getByRole('link', { name: 'Log' }).click()
  await page
    .getByTestId('paused')
    .getByText(/The cost so far is \$5\.00, and the ceiling is \$2\.00/)
    .waitFor()
  await page.getByTestId('ceiling').fill('10')
  await page.getByTestId('continue').click()
  await until('it continues', async () => (await page.getByTestId('paused').count()) === 0)
  writeFileSync(join(server.dir, 'go'), '')
  await page.locator('[data-test=status][data-status=success]').waitFor()
  rmSync(join(server.dir, 'go'))
  await server.api('POST', `/api/v1/conversations/${talk.id}/messages`, { text: 'dear again' })
  await page.goto(`/conversations/${talk.id}`)
  await page.locator('[data-number="2"]').getByRole('link', { name: 'Log' }).click()
  await page.getByTestId('end-it').click()
  await page.locator('[data-test=status][data-status=cancelled]').waitFor()
  await close(page)
})

serving(options)('usage: known cost, and budgets with their spending', async ({ server }) => {
  const trigger = await server.api('POST', '/api/v1/triggers', {
    name: 'Dear',
    backend: 'claude',
    prompt: 'Say something',
    env: { HOME: server.dir },
  })
  const page = await open(server)
  await page.goto('/usage')
  await page.getByText('No attempts ended in this period').waitFor()
  await page.getByTestId('new-budget').click()
  await page.getByTestId('budget-name').fill('Small')
  await page.getByTestId('budget-limit').fill('0.01')
  await page.getByTestId('budget-rule').selectOption('hard')
  await page.getByTestId('budget-save').click()
  await page.locator('[data-budget=Small][data-state=ok]').waitFor()
  const { execution_id: id } = await server.api('POST', `/api/v1/triggers/${trigger.id}/run`)
  await server.ended(id)
  // Updated by events, without a reload.
  await page.locator('[data-budget=Small][data-state=reached]').waitFor()
  await page.getByTestId('rows').getByText('Dear').waitFor()
  await page.getByTestId('rows').getByText('$0.0100').waitFor()
  await page.getByTestId('tokens').click()
  await page.getByTestId('rows').getByText('10 in, 5 out').waitFor()
  // The next execution waits, and its page shows the reason.
  const { execution_id: waits } = await server.api('POST', `/api/v1/triggers/${trigger.id}/run`)
  await page.goto(`/executions/${waits}`)
  await page.getByTestId('reason').getByText(/Small/).waitFor()
  await page.goto('/usage')
  await page.locator('[data-budget=Small]').getByRole('button', { name: 'Delete Small' }).click()
  await page.getByTestId('yes').click()
  await server.ended(waits)
  await close(page)
})

serving(options)('trigger form: agent, fallback, retries and messages; chain view', async ({ server }) => {
  await server.api('POST', '/api/v1/agents', { name: 'helper', backend: 'claude', env: { HOME: server.dir } })
  const page = await open(server)
  await page.goto('/triggers/new')
  await page.getByTestId('name').fill('On alerts')
  await page.getByTestId('backend').selectOption('agent:helper')
  await page.getByTestId('add-message').click()
  await page.getByLabel('Messages to').fill('topic:alarms')
  await page.getByLabel('alert', { exact: true }).check()
  await page.getByText('Retries').click()
  await page.getByTestId('on-failure').check()
  await page.getByTestId('save').click()
  await page.waitForURL(/triggers\/trg-/)
  const [made] = (await server.api('GET', '/api/v1/triggers?name=On+alerts')).items
  assert.deepEqual(
    [made.agent, made.backend, made.messages, made.retry],
    ['helper', '', [{ to: 'topic:alarms', types: ['alert'], enabled: true }], { on_failure: true }],
  )
  await page.goto('/triggers/new')
  await page.getByTestId('name').fill('With a fallback')
  await page
    .getByTestId('prompt')
    .fill('Look.')
    .catch(() => page.getByLabel('Prompt').fill('Look.'))
  await page.getByText('Account and fallback').click()
  await page.getByTestId('add-choice').click()
  await page.getByLabel('Model of choice 2').fill('a-model')
  await page.getByText('Directory, environment').click()
  await page.getByTestId('repository').fill('https://git.example/team/repo.git')
  await page.getByTestId('base').fill('main')
  await page.getByTestId('save').click()
  await page.waitForURL(/triggers\/trg-/)
  const [other] = (await server.api('GET', '/api/v1/triggers?name=With+a+fallback')).items
  assert.deepEqual(
    [other.fallback, other.workspace],
    [[{ backend: 'codex', model: 'a-model' }], { repository: 'https://git.example/team/repo.git', base: 'main' }],
  )

  const sent = await server.api('POST', '/api/v1/messages', { to: 'topic:alarms', type: 'alert', subject: 'Fire' })
  assert.equal(sent.execution_ids.length, 1)
  await server.ended(sent.execution_ids[0])
  await page.goto(`/executions/${sent.execution_ids[0]}`)
  await page.getByTestId('chain-link').click()
  await page.waitForURL(/chains\//)
  await page.getByTestId('chain').locator(`[data-link="${sent.execution_ids[0]}"] [data-status=success]`).waitFor()
  await page.getByTestId('chain').getByText('Fire').waitFor()
  assert.equal(await page.getByTestId('chain').locator('path.stroke-edge').count(), 1)
  await page.setViewportSize({ width: 360, height: 740 })
  await page.getByTestId('chain-list').getByText('caused by').waitFor()
  await close(page)
})

serving({ tools })('accessibility: agents, accounts and usage at three sizes', async ({ server }) => {
  const w = await fill(server)
  for (const [width, height] of [
    [1280, 800],
    [360, 740],
    [3840, 2160],
  ]) {
    const page = await open(server, { width, height })
    for (const path of [
      '/conversations',
      `/conversations/${w.conversation}`,
      '/agents',
      `/agents/${w.reviewer}`,
      '/agents/new',
      '/inbox?of=reviewer',
      '/accounts',
      '/usage',
      `/chains/${w.message}`,
      `/triggers/${w.agent.id}`,
    ]) {
      await page.goto(path)
      await settled(page)
      await page.locator('main details').evaluateAll(list => list.forEach(d => (d.open = true)))
      for (const scheme of width === 3840 ? ['light'] : ['light', 'dark']) {
        await page.emulateMedia({ colorScheme: scheme, reducedMotion: 'reduce' })
        await page.evaluate(() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done))))
        await sound(page, `${path} ${scheme} ${width}`)
      }
      const wide = await overflow(page)
      assert.ok(
        wide <= 0,
        `${path} is ${wide} px wider than a screen of ${width}: ${wide > 0 ? (await sticksOut(page)).join('\n') : ''}`,
      )
    }
    if (width !== 3840) {
      for (const [path, button, there] of [
        ['/accounts', 'new-account', 'account-name'],
        ['/usage', 'new-budget', 'budget-name'],
        ['/inbox?of=reviewer', 'write', 'subject'],
        ['/conversations', 'new-talk', 'first'],
      ]) {
        await page.goto(path)
        await page.getByTestId(button).click()
        await page.getByTestId(there).waitFor()
        assert.deepEqual(await violations(page), [], `the dialog of ${path} ${width}`)
      }
    }
    await close(page)
  }
})
