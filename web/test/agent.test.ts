import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { itemsOf, summaryOf, type AgentEvent, type Item } from '@/log/agent'

// The events of the lines that the real CLIs printed.
const samples = new Map<string, AgentEvent[][]>()
for (const cli of ['claude', 'codex', 'gemini', 'opencode']) {
  const file = join(process.cwd(), `../internal/agentcli/${cli}/testdata/events.jsonl`)
  for (const line of readFileSync(file, 'utf8').split('\n').filter(Boolean)) {
    const run = JSON.parse(line) as { sample: string; lines: AgentEvent[][] }
    samples.set(run.sample, run.lines)
  }
}
const read = (name: string): AgentEvent[][] => samples.get(name) ?? []
const kinds = (name: string) => read(name).flatMap((l): string[] => itemsOf(l)?.map(i => i.kind) ?? ['raw'])
const all = (name: string) => read(name).flatMap(l => itemsOf(l) ?? [])

describe('what the agent CLIs print', () => {
  it('is complete', () => {
    expect(samples.size).toBeGreaterThan(70)
  })
  it('is known for every line of an ordinary run', () => {
    for (const name of ['claude-tool-full', 'codex-tool-full', 'gemini-tool-full', 'opencode-tool-full']) {
      expect(kinds(name), name).not.toContain('raw')
      expect(kinds(name), name).toContain('tool')
      expect(
        all(name)
          .filter(i => i.kind === 'text' && i.role === 'assistant')
          .map(i => (i as Extract<Item, { kind: 'text' }>).text)
          .join(''),
        name,
      ).toBe('Done: the file is written.')
    }
  })
  it('tells of limits', () => {
    expect(kinds('claude-429-then-ok').filter(k => k === 'limit')).toHaveLength(2)
    expect(kinds('codex-429')).toContain('limit')
    expect(kinds('opencode-429')).toContain('limit')
  })
  it('tells how it ended', () => {
    const end = (name: string) => all(name).find(i => i.kind === 'end') as Extract<Item, { kind: 'end' }> | undefined
    expect(end('claude-ok')?.ok).toBe(true)
    expect(end('claude-ok')?.facts.join(' ')).toMatch(/turn.*\$/)
    expect(end('claude-401')?.ok).toBe(false)
    expect(end('codex-429')).toMatchObject({ ok: false })
    expect(end('gemini-429-long')).toMatchObject({ ok: false })
    expect(end('gemini-ok')?.ok).toBe(true)
  })
  it('says what was denied', () => {
    expect(kinds('claude-tool-read')).toContain('error')
  })
})

describe('the summary of a tool', () => {
  it('is the part that says the most, on one line', () => {
    expect(summaryOf({ description: 'd', command: 'ls -l\nrm x' })).toBe('ls -l')
    expect(summaryOf({ other: 'x' })).toBe('x')
    expect(summaryOf({})).toBe('')
    expect(summaryOf({ path: 'a'.repeat(500) }).length).toBeLessThan(170)
  })
})
