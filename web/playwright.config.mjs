import { defineConfig } from '@playwright/test'

// The browser suite. scripts/test-ui.sh runs it: --project=smoke is the part of `make test`; the tests
// of --project=alone measure time, so each of them runs alone, and --project=rest are the others.
export default defineConfig({
  testDir: 'e2e',
  outputDir: 'test-results',
  globalSetup: './e2e/global-setup.mjs',
  reporter: [['list'], ['./e2e/flaky.mjs']],
  fullyParallel: true,
  forbidOnly: true,
  workers: 2,
  retries: Number(process.env.RERUN ?? 0),
  timeout: 600_000, // for a busy machine
  use: { testIdAttribute: 'data-test', screenshot: 'only-on-failure', trace: 'on-first-retry' },
  projects: [
    { name: 'smoke', grep: /@smoke/ },
    { name: 'alone', grep: /@alone/ },
    { name: 'rest', grepInvert: /@alone/ },
  ],
})
