// Addresses, widths, and a server that is not there for a moment.
import assert from 'node:assert/strict'
import { serving, test } from './fixtures.mjs'
import { close, open, settled } from './harness.mjs'
import { sleep } from './server.mjs'

test('unknown addresses show the page of the application', async ({ server }) => {
  const page = await open(server)
  for (const path of ['/nowhere', '/usage/x', '/a/b/c/d']) {
    const r = await page.goto(path)
    assert.equal(r.status(), 404)
    await page.getByRole('heading', { name: /not found|nothing/i }).waitFor()
  }
  await page.goto('/executions/')
  await page.getByRole('heading', { name: 'Executions' }).waitFor()
  assert.equal(new URL(page.url()).pathname, '/executions')
  await close(page)
})

test('a click while the server restarts waits for it', async ({ server }) => {
  const page = await open(server)
  await page.goto('/')
  await settled(page)
  await server.kill()
  await page.getByRole('navigation', { name: 'Main' }).getByRole('link', { name: 'Usage' }).click()
  await page.getByTestId('waiting-for-server').waitFor()
  assert.match(page.url(), /^http/)
  await page.getByRole('heading', { name: 'Overview' }).waitFor() // the page is still there
  await server.up()
  await page.waitForURL('**/usage')
  await page.getByRole('heading', { name: 'Usage' }).waitFor()
  await close(page)
})

test('a conversation that does not exist is not a lost connection', async ({ server }) => {
  const page = await open(server)
  await page.goto('/conversations/cnv-01jdc4q7zv8m3k2n5p6r7s8t9w')
  await page.getByRole('heading', { name: /not found/i }).waitFor()
  await sleep(1000) // the banner would come after 400 ms
  assert.equal(await page.getByTestId('reconnecting').count(), 0)
  await close(page)
})

// A CLI that calls a tool with a long command.
const claude = `#!/bin/sh
[ "$1" = --version ] && { echo "2.1.0 (Claude Code)"; exit 0; }
cat >/dev/null
echo '{"type":"system","subtype":"init","session_id":"s-1","model":"claude-opus","tools":[],"cwd":"/"}'
long=$(printf 'go test ./internal/%s ' a b c d e f g h i j k l m n o p q r s t u v w x y z)
echo '{"type":"assistant","message":{"id":"m1","content":[{"type":"tool_use","id":"t1","name":"Bash","input":{"command":"'"$long"'"}}]}}'
echo '{"type":"user","message":{"content":[{"type":"tool_result","tool_use_id":"t1","content":"ok"}]}}'
echo '{"type":"result","subtype":"success","is_error":false,"result":"done","session_id":"s-1","total_cost_usd":0.01,"usage":{"input_tokens":1,"output_tokens":1}}'
`
serving({ tools: { claude } })('transcripts fit their container at every width', async ({ server }) => {
  const id = (
    await server.api('POST', '/api/v1/executions', { name: 'Wide', backend: 'claude', prompt: 'x', permission: 'edit' })
  ).execution_id
  await server.ended(id)
  const page = await open(server)
  for (const width of [360, 640, 768, 920, 1024, 1100, 1440]) {
    await page.setViewportSize({ width, height: 800 })
    await page.goto(`/executions/${id}`)
    await page.locator('.lv-items').first().waitFor()
    const wide = await page.evaluate(() => {
      const v = document.querySelector('.lv')
      const edge = v.getBoundingClientRect().left + v.clientWidth
      const out = [...v.querySelectorAll('.lv-items .it')].filter(e => e.getBoundingClientRect().right > edge + 1)
      return {
        scrolls: v.scrollWidth - v.clientWidth,
        out: out.length,
        boxes: v.querySelectorAll('.lv-items .it').length,
      }
    })
    assert.ok(wide.boxes > 0)
    assert.deepEqual([wide.scrolls, wide.out], [0, 0], `at ${width} px`)
  }
  await close(page)
})
