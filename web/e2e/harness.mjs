// Shared by the tests: pages that record errors, accessibility checks, and a runner with
// two workers, each with its own browser.
import assert from 'node:assert/strict'
import { mkdirSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { chromium, selectors } from 'playwright-core'
import { Server } from './server.mjs'

selectors.setTestIdAttribute('data-test')
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')

export const lines = page => page.locator('.lv-row')
export const lineText = (page, n) => page.locator(`.lv-row[data-seq="${n}"] .lv-x`)
export const lineCount = async page => Number((await page.getByTestId('line-count').textContent()).replace(/\D/g, ''))

export function launch(executablePath) {
  return chromium.launch({
    executablePath,
    args: [
      '--headless',
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  })
}

/** Opens a page for a user. Browser errors fail the test in close. */
export async function open(server, { key = server.key, scheme = 'light', width = 1280, height = 800, ...more } = {}) {
  const context = await server.browser.newContext({
    viewport: { width, height },
    colorScheme: scheme,
    baseURL: server.url,
    ...(key ? { extraHTTPHeaders: { 'X-API-Key': key } } : {}),
    ...more,
  })
  server.contexts.push(context)
  const page = await context.newPage()
  page.complaints = []
  page.refused = []
  page.on('pageerror', e => page.complaints.push(String(e)))
  page.on('console', m => {
    // Some tests break connections deliberately.
    if (m.type() === 'error' && !/ERR_CONNECTION|ERR_INCOMPLETE|ERR_EMPTY|Failed to load resource/.test(m.text()))
      page.complaints.push(m.text())
  })
  page.on('response', r => r.status() === 403 && page.refused.push(`${r.request().method()} ${r.url()}`))
  page.setDefaultTimeout(30_000)
  return page
}

export async function close(page) {
  assert.deepEqual(page.complaints, [])
  await page.context().close()
}

/** Waits until the page has loaded its data. */
export async function settled(page) {
  await page.locator('h1').first().waitFor()
  await page.waitForFunction(
    () =>
      !/Loading…/.test(document.querySelector('main')?.textContent ?? '') &&
      !document.querySelector('[aria-busy="true"]'),
  )
  await page.evaluate(() => new Promise(done => requestAnimationFrame(() => setTimeout(done, 60))))
}

/** Returns serious and critical accessibility violations. */
export async function violations(page) {
  if (!(await page.evaluate('!!window.axe'))) await page.evaluate(`${axe}; 0`)
  let found
  // A theme change takes some frames; real violations remain.
  for (let look = 0; look < 5 && (look === 0 || found.violations.length > 0); look++) {
    if (look > 0) await page.evaluate(() => new Promise(done => requestAnimationFrame(() => setTimeout(done, 100))))
    found = await page.evaluate(() =>
      window.axe.run(document, {
        runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'],
        resultTypes: ['violations'],
      }),
    )
  }
  return found.violations
    .filter(v => v.impact === 'serious' || v.impact === 'critical')
    .map(
      v =>
        `${v.id}: ${v.nodes
          .map(n => `${n.target} ${n.failureSummary}`)
          .slice(0, 3)
          .join(' | ')}`,
    )
}

/** Returns how many pixels a page is wider than its screen. */
export const overflow = page =>
  page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth)

/** Returns the elements that cause the overflow. */
export const sticksOut = page =>
  page.evaluate(() =>
    [...document.querySelectorAll('body *')]
      .filter(e => !e.closest('.sr-only') && e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
      .map(e => `${e.tagName}.${e.className} ${e.textContent.trim().slice(0, 40)}`)
      .slice(0, 8),
  )

const limit = 600_000 // per test, for a busy machine

/** Runs the tests that measure time alone, then the others two at a time, each in a browser of its own unless `shared`. */
export async function run(tests, { executablePath, bin, only, shared }) {
  const todo = tests.filter(t => !only || t.name.includes(only))
  const alone = todo.filter(t => t.options?.alone)
  const rest = todo.filter(t => !t.options?.alone).sort((a, b) => (b.options?.long ?? 0) - (a.options?.long ?? 0))
  let failed = 0
  const one = async ({ name, f, options }, browser) => {
    const start = Date.now()
    const said = []
    let server
    let timer
    try {
      server = await Server.start(bin, options)
      server.browser = browser
      server.contexts = []
      server.say = text => said.push(`    ${text}`)
      await Promise.race([
        f(server),
        new Promise(
          (_, no) =>
            (timer = setTimeout(() => no(new Error(`timeout after ${limit / 1000} s`)), options?.limit ?? limit)),
        ),
      ])
      console.log([`ok   ${name} (${((Date.now() - start) / 1000).toFixed(1)} s)`, ...said].join('\n'))
    } catch (err) {
      failed++
      console.log([`FAIL ${name}`, ...said, err.stack ?? err].join('\n'))
      const page = server?.contexts.at(-1)?.pages().at(-1)
      if (page) {
        console.log('browser errors:', page.complaints, 'at', page.url())
        const dir = join(import.meta.dirname ?? '.', '..', 'test-results')
        mkdirSync(dir, { recursive: true })
        await page.screenshot({ path: join(dir, `${name.replace(/\W+/g, '-')}.png`) }).catch(() => {})
      }
    } finally {
      clearTimeout(timer)
      for (const c of server?.contexts ?? []) await c.close().catch(() => {})
      await server?.stop()
    }
  }
  const worker = async (list, browser) => {
    for (let t = list.shift(); t; t = list.shift()) await one(t, browser)
  }
  const first = await launch(executablePath)
  const browsers = [first, shared ? first : await launch(executablePath)]
  try {
    await worker(alone, browsers[0])
    await Promise.all(browsers.map(b => worker(rest, b)))
  } finally {
    await Promise.all(browsers.map(b => b.close()))
  }
  return failed
}
