import Anser from 'anser'

/** A run of text with one style. Colours without a class are "r, g, b". */
export interface Run {
  text: string
  classes: string
  fg?: string
  bg?: string
}

// Hyperlinks, titles and other strings, and character set switches. Anser drops cursor
// movements.
const others =
  /\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[P_^X][^\x1b]*(?:\x1b\\)?|\x1b[()*+][0-9A-Za-z]|\x1b[=>78cDEHMNOZ]/g
const controls = /[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f]/g

/** Removes all escape sequences. */
export function plain(text: string): string {
  if (!text.includes('\x1b')) return text.replace(controls, '')
  return text
    .replace(others, '')
    .replace(/\x1b\[[0-?]*[ -/]*[@-~]?/g, '')
    .replace(/\x1b/g, '')
    .replace(controls, '')
}

const named = new Map([
  ['bold', 'a-bold'],
  ['dim', 'a-dim'],
  ['italic', 'a-italic'],
  ['underline', 'a-under'],
  ['strikethrough', 'a-strike'],
  ['hidden', 'a-hidden'],
  ['reverse', 'a-reverse'],
  ['blink', 'a-bold'],
])

// The 216 colours and the greys of the 256-colour palette; the first 16 have classes.
function palette(n: number): string {
  if (n >= 232) {
    const g = 8 + (n - 232) * 10
    return `${g}, ${g}, ${g}`
  }
  const c = n - 16
  const part = (v: number) => (v === 0 ? 0 : 55 + v * 40)
  return `${part(Math.floor(c / 36))}, ${part(Math.floor(c / 6) % 6)}, ${part(c % 6)}`
}

const basic = ['black', 'red', 'green', 'yellow', 'blue', 'magenta', 'cyan', 'white']

function colour(name: string | null, truecolor: string | null, side: 'fg' | 'bg'): { cls?: string; rgb?: string } {
  if (!name) return {}
  if (name === 'ansi-truecolor') return truecolor ? { rgb: truecolor } : {}
  const p = /^ansi-palette-(\d+)$/.exec(name)
  if (p) {
    const n = Number(p[1])
    if (n >= 16) return { rgb: palette(n) }
    return { cls: `${side}-${n >= 8 ? 'b' : ''}${basic[n % 8]}` }
  }
  return { cls: `${side}-${name.replace('ansi-bright-', 'b').replace('ansi-', '')}` }
}

/** Splits a line into runs of one style. */
export function runs(text: string): Run[] {
  if (!text.includes('\x1b')) return [{ text: text.replace(controls, ''), classes: '' }]
  const out: Run[] = []
  for (const e of Anser.ansiToJson(text.replace(others, ''), { json: true, remove_empty: true, use_classes: true })) {
    const content = e.content.replace(/\x1b\[?/g, '').replace(controls, '')
    if (content === '') continue
    const classes: string[] = []
    const fg = colour(e.fg, e.fg_truecolor, 'fg')
    const bg = colour(e.bg, e.bg_truecolor, 'bg')
    if (fg.cls) classes.push(fg.cls)
    if (bg.cls) classes.push(bg.cls)
    for (const d of e.decorations ?? []) {
      const cls = named.get(d)
      if (cls) classes.push(cls)
    }
    const run: Run = { text: content, classes: classes.join(' ') }
    if (fg.rgb) run.fg = fg.rgb
    if (bg.rgb) run.bg = bg.rgb
    out.push(run)
  }
  return out
}

/**
 * Returns what a terminal shows of a line with carriage returns: the last text, and the
 * number of earlier ones.
 */
export function carriage(text: string): { text: string; updates: number } {
  if (!text.includes('\r')) return { text, updates: 0 }
  const parts = text.split('\r').filter(p => plain(p).trim() !== '')
  if (parts.length === 0) return { text: '', updates: 0 }
  return { text: parts[parts.length - 1]!, updates: parts.length - 1 }
}

const address = /\bhttps?:\/\/[^\s<>"'`\\^{|}\x1b]+/g

/** Splits text into plain text and URLs. */
export function links(text: string): { text: string; href?: string }[] {
  if (!text.includes('://')) return [{ text }]
  const out: { text: string; href?: string }[] = []
  let at = 0
  for (const m of text.matchAll(address)) {
    let url = m[0].replace(/[.,;:!?*_]+$/, '')
    // A closing bracket belongs to the URL only if it was opened inside it.
    for (const [open, close] of [
      ['(', ')'],
      ['[', ']'],
    ] as const) {
      while (url.endsWith(close) && url.split(close).length > url.split(open).length) url = url.slice(0, -1)
    }
    if (!URL.canParse(url)) continue
    if (m.index > at) out.push({ text: text.slice(at, m.index) })
    out.push({ text: url, href: url })
    at = m.index + url.length
  }
  if (at < text.length) out.push({ text: text.slice(at) })
  return out
}
