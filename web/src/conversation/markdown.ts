// Markdown as agents write it (CommonMark with tables, strikethrough and task
// lists), parsed by markdown-it into a tree that is rendered without HTML.
// Import this module lazily, because the parser is large.
import MarkdownIt from 'markdown-it'

export interface Element {
  kind:
    | 'p'
    | 'h'
    | 'quote'
    | 'code'
    | 'list'
    | 'item'
    | 'table'
    | 'head'
    | 'body'
    | 'row'
    | 'cell'
    | 'rule'
    | 'strong'
    | 'em'
    | 'strike'
    | 'span'
    | 'link'
  children: Node[]
  level?: number // of h
  text?: string // of code and span
  lang?: string // of code
  ordered?: boolean // of list
  start?: number // of list
  checked?: boolean // of item; undefined: no task
  heading?: boolean // of cell
  tight?: boolean // of p: an item of a list without blank lines
  href?: string // of link
}
export type Node = string | Element

/** Texts longer than this are not parsed. */
export const maxLength = 200_000
const maxNesting = 60

const md = new MarkdownIt({ html: false, linkify: true, maxNesting })
md.linkify.set({ fuzzyLink: false, fuzzyEmail: false, fuzzyIP: false })
md.validateLink = href => safe(href) !== ''

/** Returns the URL if a page may link to it, otherwise an empty string. */
export function safe(href: string): string {
  try {
    const u = new URL(href)
    return u.protocol === 'https:' || u.protocol === 'http:' || u.protocol === 'mailto:' ? u.href : ''
  } catch {
    return ''
  }
}

// In a table, an unescaped pipe splits cells even inside code. Agents do not escape it,
// so pipes in code are replaced before the table rule runs.
const pipe = '\uFDD0'
type BlockRule = (
  state: { src: string; bMarks: number[]; eMarks: number[]; tShift: number[]; lineMax: number },
  startLine: number,
  endLine: number,
  silent: boolean,
) => boolean
const { ruler } = md.block as unknown as {
  ruler: {
    __rules__: { name: string; fn: BlockRule }[]
    at(name: string, fn: BlockRule, options: { alt: string[] }): void
  }
}
const tableRule = ruler.__rules__.find(r => r.name === 'table')!.fn
ruler.at(
  'table',
  (state, startLine, endLine, silent) => {
    const line = (n: number) => state.src.slice(state.bMarks[n]! + state.tShift[n]!, state.eMarks[n])
    if (silent || startLine + 2 > endLine || !/^[-:|][-:|\s]*$/.test(line(startLine + 1)))
      return tableRule(state, startLine, endLine, silent)
    const before = state.src
    const from = state.bMarks[startLine]!
    let last = startLine
    while (last < endLine && line(last).trim() !== '') last++
    const to = state.eMarks[Math.max(startLine, last - 1)]!
    const rows = before.slice(from, to).split('\n').map(hidePipes).join('\n')
    state.src = before.slice(0, from) + rows + before.slice(to)
    const found = tableRule(state, startLine, endLine, silent)
    state.src = before
    return found
  },
  { alt: ['paragraph', 'reference'] },
)

/** hidePipes replaces the pipes between runs of as many backticks. */
function hidePipes(row: string): string {
  if (!row.includes('`') || !row.includes('|')) return row
  const runs = [...row.matchAll(/`+/g)]
  // From the end, so that each run finds the next one of its length directly.
  const next = new Map<number, number>()
  const closing = runs.map(() => -1)
  for (let i = runs.length - 1; i >= 0; i--) {
    closing[i] = next.get(runs[i]![0].length) ?? -1
    next.set(runs[i]![0].length, i)
  }
  let out = ''
  let at = 0
  for (let i = 0; i < runs.length; i++) {
    const close = closing[i]!
    if (close < 0) continue
    const begin = runs[i]!.index
    const end = runs[close]!.index
    out += row.slice(at, begin) + row.slice(begin, end).replace(/(?<!\\)\|/g, pipe)
    at = end
    i = close
  }
  return out + row.slice(at)
}

const kinds: Record<string, Element['kind']> = {
  paragraph_open: 'p',
  heading_open: 'h',
  blockquote_open: 'quote',
  bullet_list_open: 'list',
  ordered_list_open: 'list',
  list_item_open: 'item',
  table_open: 'table',
  thead_open: 'head',
  tbody_open: 'body',
  tr_open: 'row',
  th_open: 'cell',
  td_open: 'cell',
  strong_open: 'strong',
  em_open: 'em',
  s_open: 'strike',
  link_open: 'link',
}

type Token = ReturnType<typeof md.parse>[number]

/** parse returns the blocks of a text. Unknown syntax stays text. */
export function parse(source: string): Node[] {
  if (source.length > maxLength) return plain(source)
  const tokens = md.parse(source, {})
  // The parser drops content that is nested too deeply.
  if (tokens.some(t => t.level >= maxNesting - 1)) return plain(source)
  const root: Element = { kind: 'p', children: [] }
  build(tokens, [root])
  return root.children
}

function plain(source: string): Node[] {
  return [{ kind: 'p', children: [source] }]
}

function build(tokens: Token[], stack: Element[]) {
  for (const t of tokens) {
    const parent = stack.at(-1)!
    if (t.nesting === -1) stack.pop()
    else if (t.nesting === 1) {
      const one = element(t)
      parent.children.push(one)
      stack.push(one)
    } else if (t.type === 'inline') {
      build(t.children ?? [], stack)
      if (parent.kind === 'p') task(stack.at(-2), parent)
    } else leaf(t, parent)
  }
}

function element(t: Token): Element {
  const e: Element = { kind: kinds[t.type] ?? 'p', children: [] }
  if (e.kind === 'h') e.level = Number(t.tag.slice(1))
  if (e.kind === 'p' && t.hidden) e.tight = true
  if (e.kind === 'list') {
    e.ordered = t.tag === 'ol'
    if (e.ordered) e.start = Number(t.attrGet('start') ?? 1)
  }
  if (e.kind === 'cell') e.heading = t.tag === 'th'
  if (e.kind === 'link') e.href = safe(String(t.attrGet('href') ?? ''))
  return e
}

function leaf(t: Token, parent: Element) {
  const code = t.content.replaceAll(pipe, '|')
  if (t.type === 'code_inline') parent.children.push({ kind: 'span', text: code, children: [] })
  else if (t.type === 'fence' || t.type === 'code_block')
    parent.children.push({
      kind: 'code',
      text: code.replace(/\n$/, ''),
      lang: t.info.trim().split(/\s/, 1)[0] ?? '',
      children: [],
    })
  else if (t.type === 'hr') parent.children.push({ kind: 'rule', children: [] })
  else if (t.type === 'softbreak' || t.type === 'hardbreak') text('\n', parent)
  else if (t.type === 'image') {
    // Pages load no images from other hosts, so images become links.
    const href = safe(String(t.attrGet('src') ?? ''))
    if (href) parent.children.push({ kind: 'link', href, children: [t.content || href] })
    else text(t.content, parent)
  } else text(code, parent)
}

function text(content: string, parent: Element) {
  const last = parent.children.length - 1
  if (typeof parent.children[last] === 'string') parent.children[last] += content
  else if (content) parent.children.push(content)
}

/** task removes the marker of a task list from the first paragraph of an item. */
function task(item: Element | undefined, p: Element) {
  const first = p.children[0]
  if (item?.kind !== 'item' || item.children[0] !== p || typeof first !== 'string') return
  const mark = /^\[([ xX])\](?=\s)/.exec(first)
  if (!mark) return
  item.checked = mark[1] !== ' '
  p.children[0] = first.slice(mark[0].length + 1)
}
