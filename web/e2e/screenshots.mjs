// Screenshots of every page of a real server: web/shots/NAME-SIZE-SCHEME.png.
// An argument limits them to names that contain it.
import { mkdirSync, rmSync } from 'node:fs'
import { chromium } from '@playwright/test'
import { launchOptions, open, settled, sticksOut } from './harness.mjs'
import { Server, until } from './server.mjs'
import { fill, pages, tools } from './world.mjs'

const executablePath = process.env.CHROMIUM ?? ''
if (!executablePath) {
  console.log('left out: there is no Chromium here')
  process.exit(0)
}
const only = process.argv[2]
const dir = 'shots'
if (!only) rmSync(dir, { recursive: true, force: true })
mkdirSync(dir, { recursive: true })
const server = await Server.start(process.env.AGENTED_BIN, { tools })
let failed = 0
try {
  server.browser = await chromium.launch(launchOptions(executablePath))
  server.contexts = []
  await server.api('POST', '/api/v1/auth/users', { name: 'ann', password: 'correct horse battery', role: 'admin' })
  const w = await fill(server)
  for (let i = 0; i < 14; i++) await server.api('POST', `/api/v1/triggers/${i % 3 ? w.hook.id : w.often.id}/run`)
  await server.run(
    'Search index',
    'i=0; while [ $i -lt 900 ]; do i=$((i+7)); printf "\\033[36mindexing\\033[0m %s of 900 documents\\n" $i; sleep 0.7; done',
  )
  await until(
    'little runs',
    async () => (await server.api('GET', '/api/v1/executions?status=pending,running&limit=10')).items.length <= 2,
  )
  mkdirSync('../docs/images', { recursive: true })
  const sizes = { desktop: [1440, 900], phone: [360, 740] }
  for (const [size, [width, height]] of Object.entries({ ...sizes, '4k': [3840, 2160] })) {
    const page = await open(server, { width, height, key: '' })
    await page.goto('/login')
    await page.getByLabel('Name').fill('ann')
    await page.getByLabel('Password').fill('correct horse battery')
    await page.getByRole('button', { name: 'Log in' }).click()
    await page.getByRole('heading', { name: 'Overview' }).waitFor()
    const shot = async name => {
      for (const scheme of ['light', 'dark']) {
        await page.emulateMedia({ colorScheme: scheme, reducedMotion: 'reduce' })
        // Charts are redrawn after a theme change.
        await page.evaluate(
          () => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 250)))),
        )
        await page.screenshot({
          path: `${dir}/${name}-${size}-${scheme}.png`,
          fullPage: !/^(execution-|login|docs)/.test(name),
        })
      }
      const out = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth)
      if (out > 0) {
        failed++
        console.log(`${name} ${size} is ${out} px too wide:`, await sticksOut(page))
      }
    }
    for (const [name, path] of Object.entries(pages(w))) {
      if ((only && !name.includes(only)) || (size === '4k' && !/^(overview|execution-agent|triggers)$/.test(name)))
        continue
      await page.goto(path)
      await settled(page)
      if (name.startsWith('execution-agent'))
        await until('the log', async () => (await page.locator('.lv-row').count()) > 2)
      await shot(name)
    }
    // The two images of the README.
    if (size === 'desktop' && (!only || only === 'readme')) {
      await page.setViewportSize({ width: 1280, height: 690 })
      for (const [name, path, scheme] of [
        ['overview', '/', 'light'],
        ['execution', `/executions/${w.reviewed}`, 'dark'],
      ]) {
        await page.emulateMedia({ colorScheme: scheme })
        await page.goto(path)
        await settled(page)
        for (const b of await page.locator('.it-tool .lv-fold').all()) await b.click()
        await page.mouse.move(1279, 689)
        await page.waitForTimeout(1200)
        await page.screenshot({ path: `../docs/images/${name}.png` })
      }
    }
    if (!only || 'dialog'.includes(only)) {
      if (size !== '4k') {
        await page.goto(`/triggers/${w.agent.id}`)
        await settled(page)
        await page.getByTestId('run').click()
        await shot('dialog-run')
        await page.goto('/settings/users')
        await page.getByRole('button', { name: 'Edit ann' }).click()
        await shot('dialog-user')
      }
    }
    await page.context().close()
  }
  console.log(`the pictures are in web/${dir}`)
} finally {
  await server.browser?.close()
  await server.stop()
}
process.exit(failed ? 1 : 0)
