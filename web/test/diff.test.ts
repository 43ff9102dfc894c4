import { describe, expect, it } from 'vitest'
import { rowsOf, show, words } from '../src/diff/words'

const marked = (parts: { text: string; changed: boolean }[]) =>
  parts.map(p => (p.changed ? `[${p.text}]` : p.text)).join('')

describe('words', () => {
  it('marks the words that differ', () => {
    const w = words('const a = load(b, c)', 'const a = fetch(b, d, c)')
    expect(marked(w.before)).toBe('const a = [load](b, c)')
    expect(marked(w.after)).toBe('const a = [fetch](b[, d], c)')
  })
  it('marks nothing in lines with hardly anything in common', () => {
    expect(marked(words('completely different', 'nothing alike').before)).toBe('completely different')
    expect(marked(words('', 'new').after)).toBe('new')
  })
  it('does not compare very long lines', () => {
    const long = 'word '.repeat(5000)
    expect(words(long, `${long}x`).before).toHaveLength(1)
  })
  it('keeps the text', () => {
    const a = 'if (x === 1) return y // ä'
    const b = 'if (x !== 2) return z // ö'
    expect(
      words(a, b)
        .before.map(p => p.text)
        .join(''),
    ).toBe(a)
    expect(
      words(a, b)
        .after.map(p => p.text)
        .join(''),
    ).toBe(b)
  })
})

describe('rowsOf', () => {
  it('numbers lines and pairs changed ones', () => {
    const rows = rowsOf([
      {
        old_start: 3,
        new_start: 4,
        heading: 'f()',
        lines: [' a', '-the old line', '+the new line', ' b', '+c', '\\ No newline'],
      },
    ])
    expect(rows.map(r => [r.kind, r.oldNo, r.newNo, marked(r.parts)])).toEqual([
      ['head', 0, 0, 'f()'],
      ['same', 3, 4, 'a'],
      ['old', 4, 0, 'the [old] line'],
      ['new', 0, 5, 'the [new] line'],
      ['same', 5, 6, 'b'],
      ['new', 0, 7, 'c'],
      ['note', 0, 0, ' No newline'],
    ])
  })
})

it('replaces characters that could deceive', () => {
  expect(show('a\u202eb\u0007\tc\u2066')).toBe('a\uFFFDb\uFFFD\tc\uFFFD')
})
