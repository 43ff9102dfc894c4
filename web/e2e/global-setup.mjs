// One browser for the whole run; the workers connect to it.
import { chromium } from '@playwright/test'
import { launchOptions } from './harness.mjs'

export default async function () {
  const server = await chromium.launchServer(launchOptions(process.env.CHROMIUM))
  process.env.E2E_BROWSER = server.wsEndpoint()
  return () => server.close()
}
