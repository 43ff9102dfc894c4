import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, expect, it, vi } from 'vitest'
import { createApp, h, nextTick, type App, type Component } from 'vue'
import { createMemoryHistory, createRouter, RouterView } from 'vue-router'
import AccountsPage from '@/pages/AccountsPage.vue'
import AgentPage from '@/pages/AgentPage.vue'
import TriggerPage from '@/pages/TriggerPage.vue'
import { session } from '@/session'

const cli = (name: string, label: string, more = {}) => ({
  name,
  label,
  agent: true,
  install: '',
  permissions: ['read', 'edit', 'full'],
  variables: [`${name.toUpperCase()}_API_KEY`, `${name.toUpperCase()}_HOME`],
  key_variable: `${name.toUpperCase()}_API_KEY`,
  config_variable: `${name.toUpperCase()}_HOME`,
  models: [`${name}-1`],
  ...more,
})
// What a server with a CLI answers that no file of the interface names.
const clis = [
  cli('command', 'Command', { agent: false, permissions: [], variables: [], models: [] }),
  cli('sixth', 'Sixth CLI', { install: 'install it with `npm install -g sixth`' }),
  cli('bare', 'No tools', { permissions: [] }),
]

const apps: App[] = []
afterEach(() => {
  for (const app of apps.splice(0)) app.unmount()
  vi.unstubAllGlobals()
  session.me = undefined
})

async function show(page: Component, props: Record<string, unknown>): Promise<HTMLElement> {
  vi.stubGlobal('fetch', (request: Request) =>
    Promise.resolve(
      Response.json(
        request.url.endsWith('/api/v1/info') ? { clis, placeholders: [] } : { items: [], next_cursor: null },
      ),
    ),
  )
  session.me = { name: 'ann', role: 'admin' } as never
  const el = document.createElement('div')
  document.body.append(el)
  const router = createRouter({
    history: createMemoryHistory(),
    routes: [
      { path: '/', component: page, props: () => props },
      { path: '/:any(.*)*', component: { render: () => null } },
    ],
  })
  const app = createApp({ render: () => h(RouterView) })
  app.use(router).mount(el)
  await router.push('/')
  apps.push(app)
  await eventually(() => expect(el.querySelectorAll('select').length).toBeGreaterThan(0))
  await nextTick()
  return el
}
/** Waits for a condition, with time enough for a busy machine. */
const eventually = (check: () => void) => vi.waitFor(check, 30_000)
const options = (el: Element | null | undefined) =>
  [...(el?.querySelectorAll('option') ?? [])].map(o => [o.value, o.textContent])

it('a new CLI of the server is in every form', { timeout: 120_000 }, async () => {
  const trigger = await show(TriggerPage, { id: 'new' })
  const backend = trigger.querySelector<HTMLSelectElement>('[data-test="backend"]')
  await eventually(() =>
    expect(options(backend).slice(0, 3)).toEqual([
      ['command', 'Command'],
      ['sixth', 'Sixth CLI'],
      ['bare', 'No tools'],
    ]),
  )
  expect(backend?.value).toBe('sixth')
  expect(options(trigger.querySelector('[data-path="model"]'))).toEqual([['sixth-1', '']])
  expect(options(trigger.querySelector('[data-test="permission"]'))).toHaveLength(3)

  const agent = await show(AgentPage, { id: 'new' })
  const select = agent.querySelector<HTMLSelectElement>('[data-test="backend"]')!
  await eventually(() =>
    expect(options(select)).toEqual([
      ['sixth', 'Sixth CLI'],
      ['bare', 'No tools'],
    ]),
  )
  select.value = 'bare'
  select.dispatchEvent(new Event('change'))
  await eventually(() => expect(agent.querySelector('[data-test="permission"]')).toBeNull())

  const accounts = await show(AccountsPage, {})
  const add = [...accounts.querySelectorAll('button')].find(b => /account/i.test(b.textContent))!
  add.click()
  await eventually(() =>
    expect(accounts.querySelector<HTMLInputElement>('[aria-label="Name of variable 1"]')?.value).toBe('SIXTH_API_KEY'),
  )
  expect(options(accounts.querySelector('[data-test="account-backend"]')).map(([v]) => v)).toEqual(['sixth', 'bare'])
  expect(accounts.querySelector('[data-path="backend"]')?.textContent).toContain('npm install -g sixth')
  expect(accounts.querySelector('[data-path="config"]')?.textContent).toContain('SIXTH_HOME')
})

it('no file of the interface lists the CLIs', () => {
  const source = join(process.cwd(), 'src')
  const files = readdirSync(source, { recursive: true, encoding: 'utf8' }).filter(
    f => /\.(ts|vue)$/.test(f) && !f.endsWith('schema.d.ts'),
  )
  expect(files.length).toBeGreaterThan(50)
  for (const file of files)
    expect(readFileSync(join(source, file), 'utf8'), file).not.toMatch(/codex|gemini|opencode|'claude'/i)
})
