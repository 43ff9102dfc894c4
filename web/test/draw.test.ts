import { describe, expect, it } from 'vitest'
import type { AgentEvent } from '@/log/agent'
import { draw, type Look } from '@/log/draw'
import { EntryBuilder } from '@/log/entries'
import type { LogLine } from '@/log/types'

const look: Look = { times: 'off', start: 0, attempts: false }
const line = (content: string, more: Partial<LogLine> = {}): LogLine => ({
  seq: 5,
  attempt: 1,
  timestamp: '2026-01-01T00:00:00Z',
  stream: 'stdout',
  content,
  ...more,
})
function row(content: string, opened: string[] = [], more: Partial<LogLine> = {}, l: Partial<Look> = {}): HTMLElement {
  const b = new EntryBuilder(true)
  b.add([line(content, more)])
  return draw(b.entries[0]!, { ...look, ...l }, new Set(opened))
}

describe('a row', () => {
  it('has its number, and text that can be copied without it', () => {
    const r = row('hello')
    expect(r.querySelector('.lv-n')!.textContent).toBe('5')
    expect(r.querySelector('a')!.getAttribute('href')).toBe('#L5')
    expect(r.querySelector('.lv-x')!.textContent).toBe('hello')
  })
  it('never makes elements of what was printed', () => {
    const r = row('<img src=x onerror=alert(1)> \x1b[31m<script>x</script>\x1b[0m')
    expect(r.querySelector('img, script')).toBeNull()
    expect(r.querySelector('.lv-x')!.textContent).toBe('<img src=x onerror=alert(1)> <script>x</script>')
  })
  it('links addresses, in a way that tells them nothing', () => {
    const a = row('see https://example.org/x.').querySelector<HTMLAnchorElement>('.lv-x a')!
    expect([a.getAttribute('href'), a.rel, a.target]).toEqual([
      'https://example.org/x',
      'noopener noreferrer nofollow',
      '_blank',
    ])
    expect(row('see javascript:alert(1)').querySelector('.lv-x a')).toBeNull()
  })
  it('says in words which stream it is of', () => {
    expect(row('x', [], { stream: 'stderr' }).querySelector('.lv-m')!.textContent).toBe('err')
    expect(row('x', [], { stream: 'system' }).querySelector('.lv-m')!.textContent).toBe('sys')
    expect(row('x', [], { stream: 'system', attempt: 2 }, { attempts: true }).querySelector('.lv-m')!.textContent).toBe(
      'sys·2',
    )
  })
  it('has its time when wanted', () => {
    expect(row('x').querySelector('.lv-t')).toBeNull()
    expect(
      row(
        'x',
        [],
        { timestamp: '2026-01-01T00:00:02.5Z' },
        { times: 'since', start: Date.parse('2026-01-01T00:00:00Z') },
      ).querySelector('.lv-t')!.textContent,
    ).toBe('+2.500s')
  })
  it('that was written over shows the last state, and the others when asked', () => {
    expect(row('a\rb\rc').querySelector('.lv-x')!.firstChild!.textContent).toBe('c')
    expect([...row('a\rb\rc', ['5.cr']).querySelectorAll('.lv-step')].map(s => s.textContent)).toEqual(['a', 'b', 'c'])
  })
  it('that is very long is cut until asked', () => {
    const long = 'x'.repeat(50_000)
    expect(row(long).querySelector('.lv-x')!.firstChild!.textContent!.length).toBeLessThan(10_000)
    expect(row(long, ['5.all']).querySelector('.lv-x')!.textContent!.length).toBe(50_000)
  })
})

describe('a tool', () => {
  const call: AgentEvent[] = [
    {
      kind: 'tool_result',
      id: 'i',
      tool: 'shell',
      title: 'Command',
      input: { command: 'ls -l' },
      text: 'a\nb',
      exit_code: 2,
      failed: true,
    },
  ]
  it('is folded, and says how it went', () => {
    const r = row('{}', [], { events: call })
    const b = r.querySelector<HTMLButtonElement>('.lv-fold')!
    expect(b.getAttribute('aria-expanded')).toBe('false')
    expect(b.textContent).toBe('Commandls -lfailed')
    expect(r.querySelector('.it-pre')).toBeNull()
  })
  it('unfolded shows its input and its result', () => {
    const r = row('{}', ['5.0'], { events: call })
    expect(r.querySelector('.lv-fold')!.getAttribute('aria-expanded')).toBe('true')
    expect([...r.querySelectorAll('.it-pre')].map(p => p.textContent)).toEqual([
      '{\n  "command": "ls -l"\n}',
      'a\nb\n(exit code 2)',
    ])
  })
})
