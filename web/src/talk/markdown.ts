// A little of Markdown, as agents write it, into a tree that is drawn without
// any HTML of theirs: what is not understood stays text.
export type Inline =
  | { kind: 'text' | 'code' | 'strong' | 'em'; text: string }
  | { kind: 'link'; text: string; href: string }
export type Block =
  | { kind: 'p' | 'quote'; inline: Inline[] }
  | { kind: 'h'; level: number; inline: Inline[] }
  | { kind: 'code'; lang: string; text: string }
  | { kind: 'list'; ordered: boolean; start: number; items: { depth: number; inline: Inline[] }[] }
  | { kind: 'table'; head: Inline[][]; rows: Inline[][][] }
  | { kind: 'rule' }

const fence = /^ {0,3}(`{3,}|~{3,})\s*([\w+#.-]*)[^`]*$/
const item = /^(\s*)(?:[-*+]|(\d{1,9})[.)])\s+(.*)$/

export function parse(source: string): Block[] {
  const lines = source.replace(/\r\n?/g, '\n').split('\n')
  const out: Block[] = []
  let para: string[] = []
  const flush = () => {
    if (para.length > 0) out.push({ kind: 'p', inline: inline(para.join('\n')) })
    para = []
  }
  for (let i = 0; i < lines.length; i++) {
    const line = lines[i]!
    const open = fence.exec(line)
    if (open) {
      flush()
      const mark = open[1]!
      const code: string[] = []
      for (i++; i < lines.length; i++) {
        const l = lines[i]!.trim()
        if (l.startsWith(mark) && l.split('').every(c => c === mark[0])) break
        code.push(lines[i]!)
      }
      // One that is not closed yet is still being written.
      out.push({ kind: 'code', lang: open[2] ?? '', text: code.join('\n') })
      continue
    }
    const heading = /^ {0,3}(#{1,6})\s+(.*?)\s*#*$/.exec(line)
    if (heading) {
      flush()
      out.push({ kind: 'h', level: heading[1]!.length, inline: inline(heading[2]!) })
      continue
    }
    if (/^ {0,3}([-*_])( *\1){2,}\s*$/.test(line)) {
      flush()
      out.push({ kind: 'rule' })
      continue
    }
    if (/^\s*>\s?/.test(line)) {
      flush()
      const quote: string[] = []
      for (; i < lines.length && /^\s*>\s?/.test(lines[i]!); i++) quote.push(lines[i]!.replace(/^\s*>\s?/, ''))
      i--
      out.push({ kind: 'quote', inline: inline(quote.join('\n')) })
      continue
    }
    if (line.includes('|') && /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)+\|?\s*$/.test(lines[i + 1] ?? '')) {
      flush()
      const head = cells(line)
      const rows: Inline[][][] = []
      for (i += 2; i < lines.length && lines[i]!.includes('|'); i++) rows.push(cells(lines[i]!))
      i--
      out.push({ kind: 'table', head, rows })
      continue
    }
    const first = item.exec(line)
    if (first) {
      flush()
      const items: { depth: number; text: string }[] = []
      for (; i < lines.length; i++) {
        const l = lines[i]!
        const m = item.exec(l)
        if (m) items.push({ depth: Math.min(4, Math.floor(m[1]!.replace(/\t/g, '    ').length / 2)), text: m[3]! })
        else if (/^\s+\S/.test(l) && !fence.test(l)) items.at(-1)!.text += `\n${l.trim()}`
        else break
      }
      i--
      out.push({ kind: 'list', ordered: first[2] !== undefined, start: Number(first[2] ?? 1), items: items.map(t => ({ depth: t.depth, inline: inline(t.text) })) })
      continue
    }
    if (line.trim() === '') flush()
    else para.push(line)
  }
  flush()
  return out
}

function cells(line: string): Inline[][] {
  return line.trim().replace(/^\||\|$/g, '').split('|').map(c => inline(c.trim()))
}

// Bounded repetition: none of these can take long on any text.
const mark = /(`+)([^`]|[^`][^]{0,4000}?[^`])\1(?!`)|\*\*([^\s*](?:[^*\n]{0,2000}[^\s*])?)\*\*|(?<![\w*])[*_]([^\s*_](?:[^*_\n]{0,2000}[^\s*_])?)[*_](?![\w*])|\[([^\]\n]{1,1000})\]\(([^()\s]{1,2000})\)|(https?:\/\/[^\s<>"'`)\]]{1,2000})/g

export function inline(source: string): Inline[] {
  const out: Inline[] = []
  let at = 0
  const text = (t: string) => {
    if (t) out.push({ kind: 'text', text: t })
  }
  for (const m of source.matchAll(mark)) {
    text(source.slice(at, m.index))
    at = m.index + m[0].length
    if (m[2] !== undefined) out.push({ kind: 'code', text: m[2] })
    else if (m[3] !== undefined) out.push({ kind: 'strong', text: m[3] })
    else if (m[4] !== undefined) out.push({ kind: 'em', text: m[4] })
    else if (m[5] !== undefined) {
      const href = safe(m[6]!)
      if (href) out.push({ kind: 'link', text: m[5], href })
      else text(m[0])
    } else {
      const url = m[7]!.replace(/[.,;:!?]+$/, '')
      const href = safe(url)
      if (href) out.push({ kind: 'link', text: url, href })
      else text(url)
      at -= m[7]!.length - url.length
    }
  }
  text(source.slice(at))
  return out
}

/** The address if a page may link to it. */
export function safe(href: string): string {
  try {
    const u = new URL(href)
    return u.protocol === 'https:' || u.protocol === 'http:' || u.protocol === 'mailto:' ? u.href : ''
  } catch {
    return ''
  }
}
