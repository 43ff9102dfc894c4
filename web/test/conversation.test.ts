import { describe, expect, it } from 'vitest'
import { safeName } from '@/conversation/files'
import { inShort, shown, ConversationState } from '@/conversation/state'

const script: [string, Record<string, unknown>][] = [
  ['message', { role: 'user', number: 1, text: 'hello', files: [], actor: 'ann', timestamp: 't' }],
  ['status_change', { status: 'queued', execution_id: 'e1', number: 1 }],
  ['message', { role: 'user', number: 2, text: 'and more', files: null, actor: 'ann' }],
  ['status_change', { status: 'running', execution_id: 'e1', attempt: 1 }],
  ['content_delta', { execution_id: 'e1', line: 3, text: 'Let me ', thinking: true, end: false }],
  ['content_delta', { execution_id: 'e1', line: 4, text: 'see.', thinking: true, end: false }],
  ['content_delta', { execution_id: 'e1', line: 5, text: 'I lo', thinking: false, end: false }],
  ['content_delta', { execution_id: 'e1', line: 6, text: 'ok.', thinking: false, end: false }],
  ['tool_call', { execution_id: 'e1', line: 7, id: 't1', tool: 'Bash', state: 'called', input: { command: 'ls' } }],
  ['tool_call', { execution_id: 'e1', line: 8, id: 't1', state: 'answered', output: 'a\nb' }],
  ['content_delta', { execution_id: 'e1', line: 9, text: 'Two files.', thinking: false, end: false }],
  ['message', { role: 'agent', text: 'Two files.', execution_id: 'e1' }],
  ['finish', { execution_id: 'e1', status: 'success', duration_ms: 1200, usage: { cost_usd: 0.01 }, attempts: 1 }],
]

describe('a conversation', () => {
  it('is made of its events, pieces joined, tools with their answers, each turn with what it answers', () => {
    const t = new ConversationState()
    script.forEach(([event, data], i) => t.take(event, i + 1, data))
    expect(t.entries.map(e => [e.number, e.text, e.turn?.execution])).toEqual([
      [1, 'hello', 'e1'],
      [2, 'and more', undefined],
    ])
    const turn = t.entries[0]!.turn!
    expect(turn.parts).toEqual([
      { kind: 'thinking', text: 'Let me see.' },
      { kind: 'text', text: 'I look.' },
      { kind: 'tool', id: 't1', tool: 'Bash', input: { command: 'ls' }, output: 'a\nb', state: 'answered' },
      { kind: 'text', text: 'Two files.' },
    ])
    expect(shown(turn)).toBe(turn.parts)
    expect(turn.end).toMatchObject({ status: 'success', duration: 1200 })
    expect(t.running).toBeUndefined()
    expect(t.waiting).toBe(1)
  })

  it('takes an event that comes again once, wherever the stream was cut', () => {
    for (let cut = 0; cut <= script.length; cut++) {
      for (let back = 0; back <= cut; back++) {
        const t = new ConversationState()
        script.slice(0, cut).forEach(([event, data], i) => t.take(event, i + 1, data))
        script.slice(cut - back).forEach(([event, data], i) => t.take(event, cut - back + i + 1, data))
        const whole = new ConversationState()
        script.forEach(([event, data], i) => whole.take(event, i + 1, data))
        expect(t.entries.map(e => ({ ...e, rev: 0 }))).toEqual(whole.entries.map(e => ({ ...e, rev: 0 })))
      }
    }
  })

  it('restarts with a full_sync, and shows the answer if its pieces are missing', () => {
    const t = new ConversationState()
    t.take('message', 1, { role: 'user', number: 1, text: 'old' })
    t.take('full_sync', 20, {
      truncated: false,
      events: [
        { id: 1, event: 'message', data: { role: 'user', number: 1, text: 'hello' } },
        { id: 2, event: 'status_change', data: { status: 'queued', execution_id: 'e1', number: 1 } },
        { id: 12, event: 'message', data: { role: 'agent', text: 'the answer', execution_id: 'e1' } },
      ],
    })
    expect(t.entries).toHaveLength(1)
    expect(shown(t.entries[0]!.turn!)).toEqual([{ kind: 'text', text: 'the answer' }])
    expect(t.take('message', 20, { role: 'user', number: 2, text: 'twice' })).toBe(false)
    expect(t.last).toBe(20)
  })

  it('tells what waits, what was taken back, what was refused, and that it is closed', () => {
    const t = new ConversationState()
    t.take('message', 1, { role: 'user', number: 1, text: 'a' })
    t.take('status_change', 2, { status: 'queued', execution_id: 'e1', number: 1 })
    t.take('status_change', 3, {
      status: 'waiting',
      execution_id: 'e1',
      reason: 'account claude/a has reached its limit',
      until: '2030-01-01T00:00:00Z',
    })
    t.take('message', 4, { role: 'user', number: 2, text: 'b' })
    t.take('message', 5, { role: 'user', number: 3, text: 'c' })
    t.take('error', 6, { number: 3, message: 'the agent is disabled' })
    expect(t.running?.turn).toMatchObject({ status: 'waiting', until: '2030-01-01T00:00:00Z' })
    t.take('status_change', 7, { status: 'taken_back', count: 1, actor: 'ann' })
    expect(t.entries.map(e => e.dropped)).toEqual(['', 'Withdrawn by ann.', 'the agent is disabled'])
    t.take('status_change', 8, { status: 'closed', reason: 'idle' })
    expect(t.closed).toBe('idle')
    t.take('status_change', 9, { status: 'open' })
    expect(t.closed).toBe('')
  })
})

it('names of files become such as the server takes', () => {
  expect(safeName('../etc/pass wd?.txt')).toBe('_etc_pass wd_.txt')
  expect(safeName('-rf')).toBe('rf')
  expect(safeName('...')).toBe('file')
  expect(new TextEncoder().encode(safeName(`${'ä'.repeat(200)}.png`)).length).toBeLessThanOrEqual(100)
})

it('what a tool was asked is one line', () => {
  expect(inShort({ command: 'ls\n-l' })).toBe('ls -l')
  expect(inShort({ a: 1 })).toBe('{"a":1}')
  expect(inShort(undefined)).toBe('')
})
