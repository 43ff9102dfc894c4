import { describe, expect, it } from 'vitest'
import { carriage, links, plain, runs } from '@/log/ansi'

describe('colours of terminals', () => {
  it('splits a line into runs of one look', () => {
    expect(runs('\x1b[1;32mok\x1b[0m done')).toEqual([
      { text: 'ok', classes: 'fg-green a-bold' },
      { text: ' done', classes: '' },
    ])
  })
  it('knows bright colours, grounds, palettes and any colour', () => {
    expect(runs('\x1b[91;44mx')[0]!.classes).toBe('fg-bred bg-blue')
    expect(runs('\x1b[38;5;9mx')[0]!.classes).toBe('fg-bred')
    expect(runs('\x1b[38;5;208mx')[0]!.fg).toBe('255, 135, 0')
    expect(runs('\x1b[38;5;244mx')[0]!.fg).toBe('128, 128, 128')
    expect(runs('\x1b[38;2;1;2;3mx')[0]!.fg).toBe('1, 2, 3')
  })
  it('drops what moves the cursor, titles and hyperlinks, and keeps their text', () => {
    const text = '\x1b]0;title\x07a\x1b[2Kb\x1b]8;;https://x.example\x1b\\c\x1b]8;;\x1b\\\x1b(B\x07d'
    expect(
      runs(text)
        .map(r => r.text)
        .join(''),
    ).toBe('abcd')
    expect(plain(text)).toBe('abcd')
  })
  it('never makes markup of text', () => {
    expect(
      runs('<b>\x1b[31m&amp;</b>')
        .map(r => r.text)
        .join(''),
    ).toBe('<b>&amp;</b>')
  })
  it('survives sequences that are cut', () => {
    for (const t of ['\x1b', 'a\x1b[', 'a\x1b[3', 'a\x1b]0;never ends', '\x1b[38;5mx', '\x1b[999;999mz'])
      expect(() => runs(t)).not.toThrow()
    expect(plain('a\x1b[3')).toBe('a')
  })
})

describe('lines that were written over', () => {
  it('shows the last state and counts those before', () => {
    expect(carriage('10%\r50%\r100%')).toEqual({ text: '100%', updates: 2 })
    expect(carriage('\rprogress 1\rprogress 2\r')).toEqual({ text: 'progress 2', updates: 1 })
    expect(carriage('text\r')).toEqual({ text: 'text', updates: 0 })
    expect(carriage('plain')).toEqual({ text: 'plain', updates: 0 })
    expect(carriage('\r\r')).toEqual({ text: '', updates: 0 })
  })
})

describe('addresses in text', () => {
  const found = (t: string) =>
    links(t)
      .filter(p => p.href)
      .map(p => p.href)
  it('finds http and https only', () => {
    expect(found('see https://a.example/x?y=1#z, or http://b.example.')).toEqual([
      'https://a.example/x?y=1#z',
      'http://b.example',
    ])
    expect(found('javascript://alert(1) ftp://a.example file:///etc')).toEqual([])
  })
  it('leaves the bracket around an address out, and keeps one inside', () => {
    expect(found('(https://a.example/b)')).toEqual(['https://a.example/b'])
    expect(found('https://a.example/b(c)')).toEqual(['https://a.example/b(c)'])
  })
  it('keeps all of the text', () => {
    const t = 'a https://x.example/) b https://y.example c'
    expect(
      links(t)
        .map(p => p.text)
        .join(''),
    ).toBe(t)
  })
})
