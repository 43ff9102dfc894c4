import { describe, expect, it } from 'vitest'
import type { AgentEvent } from '@/log/agent'
import { EntryBuilder, entryOf } from '@/log/entries'
import type { LogLine } from '@/log/types'

const line = (seq: number, content: string, more: Partial<LogLine> = {}): LogLine => ({
  seq,
  attempt: 1,
  timestamp: '2026-01-01T00:00:00Z',
  stream: 'stdout',
  content,
  ...more,
})
function build(lines: LogLine[], structured = false) {
  const b = new EntryBuilder(structured)
  b.add(lines)
  return b.entries
}

describe('parts of a cut line', () => {
  it('become one entry, whatever comes between on another stream', () => {
    const e = build([
      line(1, 'a', { part: 'first' }),
      line(2, 'oops', { stream: 'stderr' }),
      line(3, 'b', { part: 'middle' }),
      line(4, 'c', { part: 'last' }),
      line(5, 'next'),
    ])
    expect(e.map(x => [x.first, x.last, x.text, x.open])).toEqual([
      [1, 4, 'abc', false],
      [2, 2, 'oops', false],
      [5, 5, 'next', false],
    ])
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
    expect(
      build([
        line(1, 'a', { part: 'first' }),
        line(2, 'b', { attempt: 2, part: 'first' }),
        line(3, 'c', { attempt: 2, part: 'last' }),
      ]).map(x => x.text),
    ).toEqual(['a', 'bc'])
  })
})

describe('finding a line', () => {
  it('finds the entry that it belongs to', () => {
    const e = build([line(3, 'a'), line(4, 'b', { part: 'first' }), line(5, 'c', { part: 'last' }), line(9, 'd')])
    expect([1, 3, 4, 5, 8, 9, 99].map(n => entryOf(e, n))).toEqual([0, 0, 1, 1, 1, 2, 2])
  })
})

describe('an agent', () => {
  const j = (seq: number, ...events: AgentEvent[]) => line(seq, '{}', { events })
  it('has the result of a tool with its call', () => {
    const e = build(
      [
        j(1, { kind: 'tool_call', id: 't', tool: 'Bash', input: { command: 'ls' } }),
        j(2, { kind: 'tool_result', id: 't', text: 'a\nb' }),
      ],
      true,
    )
    expect(e).toHaveLength(1)
    expect(e[0]!.items).toMatchObject([
      { kind: 'tool', name: 'Bash', summary: 'ls', result: 'a\nb', failed: false, done: true },
    ])
  })
  it('has a call and its result on one line', () => {
    const e = build(
      [j(1, { kind: 'tool_call', id: 't', tool: 'bash' }, { kind: 'tool_result', id: 't', failed: true })],
      true,
    )
    expect(e[0]!.items).toMatchObject([{ kind: 'tool', name: 'bash', failed: true, done: true }])
  })
  it('has a result without its call when that is not in the window', () => {
    const e = build([j(2, { kind: 'tool_result', id: 't', text: 'x', failed: true })], true)
    expect(e[0]!.items).toMatchObject([{ kind: 'result-of', text: 'x', failed: true }])
  })
  it('that streams by pieces has one message', () => {
    const e = build(
      ['Hel', 'lo', ' you'].map((text, i) => j(i + 1, { kind: 'message', role: 'assistant', text, piece: true })),
      true,
    )
    expect(e.map(x => x.items)).toEqual([[{ kind: 'text', role: 'assistant', text: 'Hello you', delta: true }]])
  })
  it('has the events of a split line with its last piece', () => {
    const e = build(
      [line(1, '{"a":', { part: 'first' }), line(2, '1}', { part: 'last', events: [{ kind: 'turn' }] })],
      true,
    )
    expect(e.map(x => [x.first, x.last, x.items])).toEqual([[1, 2, [{ kind: 'note', text: 'Turn started' }]]])
  })
  it('that prints what is not known is shown as it is', () => {
    const e = build(
      [
        line(1, 'text'),
        j(2, { kind: 'unknown' }),
        j(3, { kind: 'message', text: 'a' }, { kind: 'unknown' }),
        j(4, { kind: 'usage' }),
      ],
      true,
    )
    expect(e.map(x => [x.first, x.items])).toEqual([1, 2, 3, 4].map(n => [n, undefined]))
  })
  it('is not shown when raw lines are wanted', () => {
    expect(build([j(1, { kind: 'turn' })])[0]!.items).toBeUndefined()
  })
})
