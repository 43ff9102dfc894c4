import { afterEach, expect, test, vi } from 'vitest'
import { useLogSearch } from '@/log/search'

/** A server with matches in these lines. */
function serve(lines: number[], last: number): void {
  vi.stubGlobal('fetch', (r: Request) => {
    const q = new URL(r.url).searchParams
    const n = (name: string) => Number(q.get(name) ?? 0)
    const [after, before, limit] = [n('after'), n('before'), n('limit')]
    const body = {
      hits: [] as { seq: number }[],
      next_after: last,
      next_before: 1,
      done: true,
      count: 0,
      last_seq: last,
    }
    if (q.get('count') === 'true') body.count = lines.filter(l => l > after && (!before || l < before)).length
    else if (before) {
      const found = lines.filter(l => l < before)
      body.hits = found.slice(-limit).map(seq => ({ seq }))
      body.done = found.length <= limit
    } else {
      const found = lines.filter(l => l > after)
      body.hits = found.slice(0, limit).map(seq => ({ seq }))
      body.done = found.length <= limit
      body.next_after = body.done ? last : found[limit - 1]!
    }
    return Promise.resolve(Response.json(body))
  })
}
const quiet = async (s: ReturnType<typeof useLogSearch>, total: number) =>
  vi.waitFor(() => expect([s.busy.value, s.total.value]).toEqual([false, total]), { timeout: 60_000 })
afterEach(() => void vi.unstubAllGlobals())

test('from the middle of 50,000 matches, in both directions and around the ends', async () => {
  const lines = Array.from({ length: 50_000 }, (_, i) => (i + 1) * 20)
  serve(lines, 1_000_000)
  const s = useLogSearch('exec-1')
  s.query.value = 'x'
  await s.search(777_777)
  expect(s.current.value?.seq).toBe(777_780)
  await quiet(s, 50_000)
  const at = (i: number) => {
    expect(s.current.value?.seq).toBe(lines[i])
    expect(s.position.value).toBe(i + 1)
  }
  let i = 38_888
  at(i)
  const go = async (by: 1 | -1, times: number) => {
    for (let n = 0; n < times; n++) {
      s.step(by)
      if (s.busy.value) await quiet(s, 50_000)
      i = (i + by + lines.length) % lines.length
      at(i)
    }
  }
  await go(-1, 4500)
  await go(1, 5000)
  expect(s.hits.value.length).toBeLessThanOrEqual(2200)
  await s.search(999_950)
  await quiet(s, 50_000)
  i = 49_997
  await go(1, 500) // around the end
  await go(-1, 1000) // and back
})

test('one match, none, and a match only before the reader', async () => {
  serve([7], 100)
  const s = useLogSearch('exec-1')
  s.query.value = 'x'
  await s.search(50)
  expect(s.current.value?.seq).toBe(7)
  await quiet(s, 1)
  for (const by of [1, 1, -1, -1, 1] as const) {
    s.step(by)
    await quiet(s, 1)
    expect([s.current.value?.seq, s.position.value]).toEqual([7, 1])
  }
  serve([], 100)
  await s.search(50)
  expect([s.total.value, s.current.value]).toEqual([0, undefined])
})
