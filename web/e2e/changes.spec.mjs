// What an execution changed, in a real browser with real git.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { test } from './fixtures.mjs'
import { close, open, overflow, settled, violations } from './harness.mjs'
import { until } from './server.mjs'

test('changes: files, words, artifacts, keyboard, narrow and wide', { tag: '@smoke' }, async ({ server }) => {
  const dir = join(server.dir, 'repository')
  mkdirSync(dir)
  const sh = script => execFileSync('sh', ['-c', script], { cwd: dir })
  sh(
    `git init -q && mkdir -p src/deep && printf 'first\\nconst a = load(b)\\nlast\\n' > src/deep/code.ts && i=0 && while [ $i -lt 300 ]; do i=$((i+1)); echo $i > file-$i; done && git add -A && git -c user.name=x -c user.email=x@example.org commit -qm one`,
  )
  const id = await server.run(
    'Changer',
    `printf 'first\\nconst a = fetch(b)\\nlast\\n' > src/deep/code.ts; git -c user.name=x -c user.email=x@example.org commit -qam 'use fetch'
      i=0; while [ $i -lt 300 ]; do i=$((i+1)); echo new $i >> file-$i; done; printf 'a\\0b' > picture.bin; rm file-7; git mv file-8 renamed-8
      printf 'evil\\342\\200\\256name' > "$(printf 'odd\\033name')"; echo report > $AGENTED_OUT/artifacts/report.txt`,
    { working_dir: dir },
  )
  const ended = await server.ended(id)
  assert.equal(ended.status, 'success')
  assert.equal(ended.changes.commits, 1)
  for (const [width, height] of [
    [1280, 800],
    [390, 780],
  ]) {
    const wide = width > 1000
    const page = await open(server, { width, height })
    await page.goto(`/executions/${id}`)
    await page.getByRole('tab', { name: /^Changes/ }).click()
    const list = page.getByTestId('changed-files')
    await list.waitFor()
    assert.match(await page.getByTestId('changes-summary').textContent(), /304 files/)
    const look = async what => {
      for (const scheme of ['light', 'dark']) {
        await page.emulateMedia({ colorScheme: scheme, reducedMotion: 'reduce' })
        await settled(page)
        assert.deepEqual(await violations(page), [], `${what} ${scheme} ${width}`)
      }
      assert.ok((await overflow(page)) <= 0, `${what} is wider than ${width}`)
    }
    await look('list')
    // Only the rows in view are in the document.
    assert.ok((await list.getByRole('option').count()) < 80)
    await list.focus()
    await page.keyboard.press('End')
    const last = list.getByRole('option', { selected: true })
    await until('the last file is selected', async () => /code\.ts/.test(await last.textContent()))
    await page.keyboard.press('Enter')
    const diff = page.getByTestId('diff')
    await diff.waitFor()
    assert.deepEqual(await diff.locator('mark').allTextContents(), ['load', 'fetch'])
    assert.deepEqual(await diff.locator('tr.old .no').allTextContents(), ['2', ''])
    await look('file')
    if (!wide) {
      await page.getByRole('button', { name: 'Files' }).click()
      await list.waitFor()
    }
    await page.getByLabel('Filter files').fill('picture')
    await list.getByRole('option').click()
    assert.match(await page.getByTestId('diff-note').textContent(), /Binary file/)
    if (wide) {
      await page.getByText('1 artifact').click()
      const [download] = await Promise.all([
        page.waitForEvent('download'),
        page.getByRole('link', { name: 'report.txt' }).click(),
      ])
      assert.equal(download.suggestedFilename(), 'report.txt')
    }
    await close(page)
  }
})

test('changes: 20,000 files open in the list', async ({ server }) => {
  const dir = join(server.dir, 'large')
  mkdirSync(dir)
  execFileSync('git', ['init', '-q'], { cwd: dir })
  const id = await server.run('Many files', 'seq 1 20000 | split -a 4 -l 1 - f', {
    working_dir: dir,
    timeout_seconds: 600,
  })
  await server.ended(id, 300_000)
  const page = await open(server)
  await page.goto(`/executions/${id}`)
  await page.getByRole('tab', { name: /^Changes/ }).waitFor()
  const began = Date.now()
  await page.getByRole('tab', { name: /^Changes/ }).click()
  await page.getByTestId('changed-files').getByRole('option').first().waitFor()
  await page.getByTestId('diff').waitFor()
  console.log(`20,000 files: list and first file in ${Date.now() - began} ms`)
  assert.match(await page.getByTestId('changes-summary').textContent(), /20,000 files/)
  await close(page)
})
