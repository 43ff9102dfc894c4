import { describe, expect, it } from 'vitest'
import { EntryBuilder, entryOf } from '@/log/entries'
import type { LogLine } from '@/log/types'

const line = (seq: number, content: string, more: Partial<LogLine> = {}): LogLine => ({ seq, attempt: 1, timestamp: '2026-01-01T00:00:00Z', stream: 'stdout', content, ...more })
function build(lines: LogLine[], structured = false) {
  const b = new EntryBuilder(structured)
  b.add(lines)
  return b.entries
}

describe('parts of a cut line', () => {
  it('become one entry, whatever comes between on another stream', () => {
    const e = build([
      line(1, 'a', { part: 'first' }), line(2, 'oops', { stream: 'stderr' }), line(3, 'b', { part: 'middle' }),
      line(4, 'c', { part: 'last' }), line(5, 'next'),
    ])
    expect(e.map(x => [x.first, x.last, x.text, x.open])).toEqual([[1, 4, 'abc', false], [2, 2, 'oops', false], [5, 5, 'next', false]])
  })
  it('stay open until the last one comes', () => {
    const b = new EntryBuilder(false)
    b.add([line(1, '10%\r', { part: 'first' })])
    expect(b.entries[0]!.open).toBe(true)
    const version = b.entries[0]!.version
    b.add([line(2, '20%', { part: 'last' })])
    expect(b.entries).toHaveLength(1)
    expect(b.entries[0]!.text).toBe('10%\r20%')
    expect(b.entries[0]!.version).toBeGreaterThan(version)
  })
  it('are shown without their beginning if that is not in the window', () => {
    expect(build([line(7, 'rest', { part: 'last' }), line(8, 'x')]).map(x => x.text)).toEqual(['rest', 'x'])
  })
  it('of two attempts are not mixed', () => {
    expect(build([line(1, 'a', { part: 'first' }), line(2, 'b', { attempt: 2, part: 'first' }), line(3, 'c', { attempt: 2, part: 'last' })]).map(x => x.text)).toEqual(['a', 'bc'])
  })
})

describe('finding a line', () => {
  it('finds the entry that it belongs to', () => {
    const e = build([line(3, 'a'), line(4, 'b', { part: 'first' }), line(5, 'c', { part: 'last' }), line(9, 'd')])
    expect([1, 3, 4, 5, 8, 9, 99].map(n => entryOf(e, n))).toEqual([0, 0, 1, 1, 1, 2, 2])
  })
})

describe('an agent', () => {
  const j = (seq: number, o: unknown) => line(seq, JSON.stringify(o))
  it('has the result of a tool with its call', () => {
    const e = build([
      j(1, { type: 'assistant', message: { content: [{ type: 'tool_use', id: 't', name: 'Bash', input: { command: 'ls' } }] } }),
      j(2, { type: 'user', message: { content: [{ type: 'tool_result', tool_use_id: 't', content: 'a\nb' }] } }),
    ], true)
    expect(e).toHaveLength(1)
    expect(e[0]!.items).toMatchObject([{ kind: 'tool', name: 'Bash', summary: 'ls', result: 'a\nb', failed: false, done: true }])
  })
  it('has a result without its call when that is not in the window', () => {
    const e = build([j(2, { type: 'user', message: { content: [{ type: 'tool_result', tool_use_id: 't', content: 'x', is_error: true }] } })], true)
    expect(e[0]!.items).toMatchObject([{ kind: 'result-of', text: 'x', failed: true }])
  })
  it('that streams by pieces has one message', () => {
    const e = build(['Hel', 'lo', ' you'].map((content, i) => j(i + 1, { type: 'message', role: 'assistant', content, delta: true })), true)
    expect(e.map(x => x.items)).toEqual([[{ kind: 'text', role: 'assistant', text: 'Hello you', delta: true }]])
  })
  it('that prints what is not known is shown as it is', () => {
    const unknown = ['{"type":"new_thing","x":1}', '{"a":1}', '{broken', 'text', '[1]', 'null', '{"type":"assistant","message":{"content":[{"type":"hologram"}]}}', '{"type":"item.completed","item":{"type":"dream"}}']
    const e = build(unknown.map((t, i) => line(i + 1, t)), true)
    expect(e.map(x => [x.text, x.items])).toEqual(unknown.map(t => [t, undefined]))
  })
  it('is not looked for on standard error, nor when raw lines are wanted', () => {
    const l = j(1, { type: 'turn.started' })
    expect(build([{ ...l, stream: 'stderr' }], true)[0]!.items).toBeUndefined()
    expect(build([l])[0]!.items).toBeUndefined()
  })
})
