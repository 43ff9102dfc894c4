import { describe, expect, it } from 'vitest'
import { readHash, writeHash } from '@/log/hash'
import { endPlace, fromScroll, maxHeight, move, reached, toScroll, trackHeight } from '@/log/scroll'
import type { LogLine } from '@/log/types'
import { fetchRange, LogWindow, maxLines, Tail } from '@/log/window'

const line = (seq: number, content = `line ${seq}`): LogLine => ({
  seq,
  attempt: 1,
  timestamp: '2026-01-01T00:00:00Z',
  stream: 'stdout',
  content,
})
const span = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => line(from + i))

describe('the scroll bar', () => {
  it('is exact while the browser can lay it out', () => {
    expect(trackHeight(1000, 20, 600)).toBe(20_000)
    for (const top of [0, 1, 17.5, 500, 970]) expect(toScroll(top, 1000, 20, 600)).toBeCloseTo(top * 20, 6)
  })
  it('is a scale of a log of ten million lines', () => {
    const rows = 10_000_000
    expect(trackHeight(rows, 20, 600)).toBe(maxHeight)
    expect(toScroll(0, rows, 20, 600)).toBe(0)
    expect(toScroll(rows, rows, 20, 600)).toBe(maxHeight - 600)
    for (const top of [0, 1, 123_456, 9_999_970])
      expect(fromScroll(toScroll(top, rows, 20, 600), rows, 20, 600)).toBeCloseTo(top, 3)
  })
  it('does nothing when all of it fits', () => {
    expect(toScroll(3, 5, 20, 600)).toBe(0)
    expect(fromScroll(0, 5, 20, 600)).toBe(0)
    expect(trackHeight(0, 20, 600)).toBe(600)
  })
})

describe('a place', () => {
  const heights = [20, 50, 20, 100, 20]
  const h = (i: number) => heights[i]!
  it('moves by pixels over rows of any height', () => {
    expect(move({ index: 0, offset: 0 }, 25, 5, h)).toEqual({ index: 1, offset: 5 })
    expect(move({ index: 1, offset: 5 }, -25, 5, h)).toEqual({ index: 0, offset: 0 })
    expect(move({ index: 0, offset: 0 }, 90, 5, h)).toEqual({ index: 3, offset: 0 })
  })
  it('stops at both ends', () => {
    expect(move({ index: 2, offset: 3 }, -1000, 5, h)).toEqual({ index: 0, offset: 0 })
    expect(move({ index: 0, offset: 0 }, 1000, 5, h).index).toBe(4)
  })
  it('at the end has the last row at the bottom', () => {
    expect(endPlace(5, 120, h)).toEqual({ index: 3, offset: 0 })
    expect(endPlace(5, 100, h)).toEqual({ index: 3, offset: 20 })
    expect(endPlace(5, 1000, h)).toEqual({ index: 0, offset: 0 })
    expect(endPlace(0, 100, h)).toEqual({ index: 0, offset: 0 })
    expect(reached({ index: 3, offset: 19.5 }, { index: 3, offset: 20 })).toBe(true)
    expect(reached({ index: 2, offset: 0 }, { index: 3, offset: 20 })).toBe(false)
  })
})

describe('a window of lines', () => {
  it('removes lines at the far end and keeps visible ones', () => {
    const w = new LogWindow(false)
    w.reset(span(1, maxLines + 500), 0, maxLines + 500)
    expect(w.trim('top', 4000, 0)).toBe(true)
    expect(w.after).toBe(w.lines[0]!.seq - 1)
    expect(w.after).toBeLessThan(4000)
    expect(w.lines.length).toBeLessThanOrEqual(maxLines)
    expect(w.entries.length).toBe(w.lines.length)
    w.reset(span(1, maxLines + 500), 0, maxLines + 500)
    expect(w.trim('bottom', 0, 6200)).toBe(true)
    expect(w.upTo).toBeGreaterThanOrEqual(6200)
    expect(w.lines.at(-1)!.seq).toBe(w.upTo)
  })
  it('is small in characters too', () => {
    const w = new LogWindow(false)
    w.reset(
      Array.from({ length: 40 }, (_, i) => line(i + 1, 'x'.repeat(1 << 20))),
      0,
      40,
    )
    expect(w.full).toBe(true)
    w.trim('top', Number.MAX_SAFE_INTEGER, 0)
    expect(w.lines.length).toBeLessThan(20)
  })
  it('stays as it is while it is small', () => {
    const w = new LogWindow(false)
    w.reset(span(1, 100), 0, 100)
    expect(w.trim('top', 1e9, 0)).toBe(false)
  })
})

describe('fetching a range', () => {
  it('continues after truncated responses, and stops at its end', async () => {
    const asked: [number, number][] = []
    const got = await fetchRange(
      async (after, limit) => {
        asked.push([after, limit])
        const to = Math.min(after + limit, after + 40)
        return { lines: span(after + 1, to), next_after: to }
      },
      10,
      100,
    )
    expect(got.lines.map(l => l.seq)).toEqual(span(11, 100).map(l => l.seq))
    expect(got.upTo).toBe(100)
    expect(asked.length).toBe(3)
  })
  it('leaves out what lies behind the range, and skips numbers that are not there', async () => {
    const got = await fetchRange(
      async after => (after < 50 ? { lines: [line(20), line(60)], next_after: 60 } : { lines: [], next_after: after }),
      10,
      50,
    )
    expect(got.lines.map(l => l.seq)).toEqual([20])
    expect(got.upTo).toBe(50)
    expect((await fetchRange(async after => ({ lines: [], next_after: after }), 10, 50)).upTo).toBe(50)
  })
})

describe('the tail of a stream', () => {
  it('gives what follows a line, if it reaches back so far', () => {
    const t = new Tail()
    expect(t.behind(0)).toBeUndefined()
    t.start(100)
    expect(t.behind(100)).toEqual([])
    t.add(span(101, 110))
    expect(t.behind(105)!.map(l => l.seq)).toEqual([106, 107, 108, 109, 110])
    expect(t.behind(99)).toBeUndefined()
    expect(t.behind(110)).toEqual([])
    expect(t.end).toBe(110)
  })
  it('does not grow', () => {
    const t = new Tail()
    t.start(0)
    for (let i = 0; i < 50; i++) t.add(span(i * 100 + 1, i * 100 + 100))
    expect(t.lines.length).toBeLessThanOrEqual(2000)
    expect(t.lines[0]!.seq).toBe(t.after + 1)
    expect(t.lines.at(-1)!.seq).toBe(5000)
  })
})

describe('links to lines', () => {
  it('name a line or a range', () => {
    expect(readHash('#L7')).toEqual([7, 7])
    expect(readHash('#L10-L20')).toEqual([10, 20])
    expect(readHash('#L20-10')).toEqual([10, 20])
    for (const bad of ['', '#', '#L', '#L0', '#x', '#L1-', '#L-5']) expect(readHash(bad)).toBeUndefined()
    expect(writeHash([10, 20])).toBe('#L10-L20')
    expect(writeHash([3, 3])).toBe('#L3')
  })
})
