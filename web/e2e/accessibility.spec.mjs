// Accessibility and overflow: the main pages in the smoke run, and every page in dark and light, wide
// and narrow. The file is the first by name, since its tests are the longest.
import assert from 'node:assert/strict'
import { serving } from './fixtures.mjs'
import { close, open, overflow, settled, sticksOut, violations } from './harness.mjs'
import { fill, pages, tools } from './world.mjs'

const mainPages = ['overview', 'executions', 'execution-agent', 'triggers', 'trigger-new', 'settings-keys']

serving({ tools })('accessibility: no serious violation on the main pages', { tag: '@smoke' }, async ({ server }) => {
  const all = pages(await fill(server))
  const page = await open(server)
  for (const name of mainPages) {
    assert.ok(all[name], `unknown page ${name}`)
    await page.goto(all[name])
    await settled(page)
    assert.deepEqual(await violations(page), [], name)
    assert.ok((await overflow(page)) <= 0, `${name} is wider than its screen`)
  }
  await close(page)
})

for (const [name, width, height] of [
  ['wide', 1280, 800],
  ['narrow', 360, 740],
]) {
  serving({ tools })(`axe finds no serious violation on any page, dark and light, ${name}`, async ({ server }) => {
    await server.api('POST', '/api/v1/auth/users', {
      name: 'ann',
      password: 'correct horse battery',
      role: 'admin',
    })
    const w = await fill(server)
    const page = await open(server, { width, height })
    const look = async (what, again) => {
      for (const scheme of ['light', 'dark']) {
        await page.emulateMedia({ colorScheme: scheme, reducedMotion: 'reduce' })
        // Wait until the theme has changed completely.
        if (again) await again()
        else await page.evaluate(() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done))))
        // The API reference is long and does not depend on the width.
        if (what !== 'docs' || name === 'wide')
          assert.deepEqual(await violations(page), [], `${what} ${scheme} ${width}`)
      }
      const wide = await overflow(page)
      assert.ok(
        wide <= 0,
        `${what} is ${wide} px wider than a screen of ${width}: ${wide > 0 ? (await sticksOut(page)).join('\n') : ''}`,
      )
    }
    for (const [what, path] of Object.entries(pages(w))) {
      const see = async () => {
        await page.goto('about:blank')
        await page.goto(path)
        await settled(page)
        await page.locator('main details').evaluateAll(list => list.forEach(d => (d.open = true)))
      }
      const live = what === 'execution-running' || what === 'overview'
      if (!live) await see()
      await look(what, live && see)
    }
    // Dialogs and menus.
    await page.goto(`/triggers/${w.agent.id}`)
    await settled(page)
    await page.getByTestId('as-yaml').click()
    await page.getByTestId('yaml').waitFor()
    await look('the YAML of a trigger')
    await page.getByTestId('run').click()
    await page.getByTestId('run-yes').waitFor()
    await look('the dialog that runs')
    await page.goto('/settings/users')
    await page.getByRole('button', { name: 'Edit ann' }).click()
    await look('the dialog of a user')
    await page.goto(`/triggers/${w.agent.id}`)
    await page.getByTestId('delete').click()
    await look('a question before something is done')
    await page.getByRole('dialog').getByRole('button', { name: 'Cancel' }).click()
    await page.goto(`/executions/${w.colours}`)
    await page.getByRole('button', { name: 'Search' }).click()
    await page.getByPlaceholder(/Search/).fill('1')
    await page.keyboard.press('Enter')
    await page.getByTestId('hits').getByText(/of/).waitFor()
    await look('a search')
    await page.goto('/settings')
    await page.getByTestId('user-menu').click()
    await look('the menu of the user')
    await close(page)
  })
}
