import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { readAgentLine, summaryOf, type Item } from '@/log/agent'

// What the real CLIs printed.
const samples = join(process.cwd(), '../internal/backend/testdata/samples')
const read = (name: string) => readFileSync(join(samples, name), 'utf8').split('\n').filter(l => l !== '')
const kinds = (name: string) => read(name).flatMap((l): string[] => readAgentLine(l)?.map(i => i.kind) ?? ['raw'])
const all = (name: string) => read(name).flatMap(l => readAgentLine(l) ?? [])

describe('what the agent CLIs print', () => {
  it.each(readdirSync(samples).filter(f => f.endsWith('.out')))('is read or shown raw: %s', name => {
    for (const line of read(name)) {
      const items = readAgentLine(line)
      if (items) for (const i of items) expect(typeof i.kind).toBe('string')
    }
  })
  it('is known for every line of an ordinary run', () => {
    for (const name of ['claude-tool-full.out', 'codex-tool-full.out', 'gemini-tool-full.out', 'opencode-tool-full.out']) {
      expect(kinds(name), name).not.toContain('raw')
      expect(kinds(name), name).toContain('tool')
      expect(all(name).filter(i => i.kind === 'text' && i.role === 'assistant').map(i => (i as Extract<Item, { kind: 'text' }>).text).join(''), name).toBe('Done: the file is written.')
    }
  })
  it('tells of limits', () => {
    expect(kinds('claude-429-then-ok.out').filter(k => k === 'limit')).toHaveLength(2)
    expect(kinds('codex-429.out')).toContain('limit')
    expect(kinds('opencode-429.out')).toContain('limit')
  })
  it('tells how it ended', () => {
    const end = (name: string) => all(name).find(i => i.kind === 'end') as Extract<Item, { kind: 'end' }> | undefined
    expect(end('claude-ok.out')?.ok).toBe(true)
    expect(end('claude-ok.out')?.facts.join(' ')).toMatch(/turn.*\$/)
    expect(end('claude-401.out')?.ok).toBe(false)
    expect(end('codex-429.out')).toMatchObject({ ok: false })
    expect(end('gemini-429-long.out')).toMatchObject({ ok: false })
    expect(end('gemini-ok.out')?.ok).toBe(true)
  })
  it('says what was denied', () => {
    expect(kinds('claude-tool-read.out')).toContain('error')
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
