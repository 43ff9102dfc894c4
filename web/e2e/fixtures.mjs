// Tests with a server of their own, in the one browser that global-setup.mjs starts.
import { chromium, test as base } from '@playwright/test'
import { Server } from './server.mjs'

export const test = base.extend({
  // What Server.start receives.
  serverOptions: [{}, { option: true }],
  browser: [
    // eslint-disable-next-line no-empty-pattern
    async ({}, use) => {
      const browser = await chromium.connect(process.env.E2E_BROWSER)
      await use(browser)
      await browser.close()
    },
    { scope: 'worker' },
  ],
  server: async ({ browser, serverOptions }, use, info) => {
    const server = await Server.start(process.env.AGENTED_BIN, serverOptions)
    server.browser = browser
    server.contexts = []
    try {
      await use(server)
    } finally {
      if (info.status !== info.expectedStatus) {
        for (const page of server.contexts.flatMap(c => c.pages()))
          console.log('browser errors:', page.complaints, 'at', page.url())
        await info.attach('server log', { body: server.log, contentType: 'text/plain' })
      }
      for (const c of server.contexts) await c.close().catch(() => {})
      await server.stop()
    }
  },
})

/** Returns a test whose server is started with options. */
export const serving = serverOptions => test.extend({ serverOptions })
