// Shared by the tests and the screenshots: pages that record errors, and accessibility checks.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { selectors } from '@playwright/test'

selectors.setTestIdAttribute('data-test')
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')

export const lines = page => page.locator('.lv-row')
export const lineText = (page, n) => page.locator(`.lv-row[data-seq="${n}"] .lv-x`)
export const lineCount = async page => Number((await page.getByTestId('line-count').textContent()).replace(/\D/g, ''))

/** How Chromium is started. It is never downloaded. */
export const launchOptions = executablePath => ({
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
