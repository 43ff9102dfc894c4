import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { Multiplexer, parser, slots, type Connect, type Hooks, type Tab, type Told } from '@/api/multiplex'

interface Line extends Hooks {
  url: string
  after: string | undefined
  stopped: boolean
}
let lines: Line[]
let all: Multiplexer
const live = () => lines.filter(l => !l.stopped)
const connect: Connect = (url, after, hooks) => {
  const line: Line = { ...hooks, url, after, stopped: false }
  lines.push(line)
  return () => (line.stopped = true)
}
function tab(): Tab & { got: Told[] } {
  const got: Told[] = []
  return { got, post: m => got.push(m) }
}
beforeEach(() => {
  vi.useFakeTimers()
  lines = []
  all = new Multiplexer(connect)
})
afterEach(() => {
  all.end()
  vi.useRealTimers()
})

test('tabs share one connection for the same events', () => {
  const tabs = Array.from({ length: 8 }, tab)
  for (const t of tabs) all.receive(t, { do: 'open', id: 1, url: 'x', after: undefined, shared: true })
  expect(lines).toHaveLength(1)
  lines[0]!.open()
  lines[0]!.event('execution', '{}', '7')
  for (const t of tabs) expect(t.got.map(m => m.state)).toEqual(['open', 'event'])
  const late = tab()
  all.receive(late, { do: 'open', id: 5, url: 'x', after: undefined, shared: true })
  expect(late.got).toEqual([{ id: 5, state: 'open' }])
  for (const t of tabs) all.receive(t, { do: 'bye' })
  expect(live()).toHaveLength(1)
  all.receive(late, { do: 'close', id: 5 })
  expect(live()).toHaveLength(0)
})

test('more streams than connections take turns and resume after their last id', () => {
  const tabs = Array.from({ length: 8 }, tab)
  const seen = new Map<string, number>()
  tabs.forEach((t, i) => all.receive(t, { do: 'open', id: 1, url: `log${i}`, after: undefined, shared: false }))
  expect(live()).toHaveLength(slots)
  for (let round = 0; round < 40; round++) {
    for (const l of live()) {
      l.open()
      expect(Number(l.after ?? 0)).toBe(seen.get(l.url) ?? 0)
      const next = (seen.get(l.url) ?? 0) + 1
      seen.set(l.url, next)
      l.after = String(next)
      l.event('log', '', String(next))
    }
    expect(live().length).toBeLessThanOrEqual(slots)
    vi.advanceTimersByTime(500)
  }
  expect(seen.size).toBe(8)
  expect(Math.min(...seen.values())).toBeGreaterThan(5)
  // A tab in turn does not notice that its stream waited.
  for (const t of tabs) expect(t.got.filter(m => m.state === 'reconnecting')).toEqual([])
})

test('a broken connection is repeated, a rejected one is not', () => {
  const t = tab()
  all.receive(t, { do: 'open', id: 1, url: 'a', after: '3', shared: false })
  lines[0]!.open()
  lines[0]!.event('log', 'x', '4')
  lines[0]!.end(0)
  vi.advanceTimersByTime(15_000)
  expect(lines[1]!.after).toBe('4')
  lines[1]!.end(503)
  vi.advanceTimersByTime(15_000)
  lines[2]!.end(401)
  vi.advanceTimersByTime(15_000)
  expect(lines).toHaveLength(3)
  expect(t.got.at(-1)).toEqual({ id: 1, state: 'refused', status: 401 })
})

test('a tab that has disappeared is forgotten', () => {
  const t = tab()
  all.receive(t, { do: 'open', id: 1, url: 'a', after: undefined, shared: false })
  vi.advanceTimersByTime(120_000)
  expect(live()).toHaveLength(0)
})

test('the event stream is read in any pieces', () => {
  const text = ': hi\r\nid: 1\nevent: log\ndata: a\ndata: b\n\nretry: 5\ndata:c\r\n\r\nid: 2\r\rdata\n\n'
  const expected = [
    ['log', 'a\nb', '1'],
    ['message', 'c', '1'],
    ['message', '', '2'],
  ]
  for (let size = 1; size <= text.length; size++) {
    const got: string[][] = []
    const parse = parser((...e) => got.push(e))
    for (let i = 0; i < text.length; i += size) parse(text.slice(i, i + size))
    expect(got, `pieces of ${size}`).toEqual(expected)
  }
})
