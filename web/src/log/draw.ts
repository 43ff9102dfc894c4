import { carriage, links, plain, runs } from './ansi'
import type { Item } from './agent'
import type { Entry } from './entries'
import { clockTime, sinceTime } from '@/lib/time'

export type Times = 'off' | 'clock' | 'since'

export interface Look {
  times: Times
  start: number
  attempts: boolean // more than one: rows show the number
}

// Longer text is truncated until the user expands it.
const cutAt = 8000

function el(tag: string, cls = '', text = ''): HTMLElement {
  const e = document.createElement(tag)
  if (cls) e.className = cls
  if (text) e.textContent = text
  return e
}

function appendText(to: HTMLElement, text: string): void {
  for (const part of links(text)) {
    if (part.href === undefined) {
      to.append(part.text)
      continue
    }
    const a = document.createElement('a')
    a.href = part.href
    a.target = '_blank'
    a.rel = 'noopener noreferrer nofollow'
    a.textContent = part.text
    a.tabIndex = -1
    to.append(a)
  }
}

function appendRuns(to: HTMLElement, text: string): void {
  for (const r of runs(text)) {
    if (!r.classes && !r.fg && !r.bg) {
      appendText(to, r.text)
      continue
    }
    const span = el('span', r.classes)
    if (r.fg) {
      span.classList.add('fg-any')
      span.style.setProperty('--fg', `rgb(${r.fg})`)
    }
    if (r.bg) {
      span.classList.add('bg-any')
      span.style.backgroundColor = `rgb(${r.bg})`
    }
    appendText(span, r.text)
    to.append(span)
  }
}

function button(text: string, action: string, label?: string): HTMLButtonElement {
  const b = el('button', 'lv-more', text) as HTMLButtonElement
  b.type = 'button'
  b.dataset.open = action
  if (label) b.setAttribute('aria-label', label)
  return b
}

const marks = { stdout: '', stderr: 'err', system: 'sys' } as const
const markTitles = { stdout: '', stderr: 'Standard error', system: 'Written by Agented' } as const

/** Draws an entry. opened has the keys of its expanded parts. */
export function draw(e: Entry, look: Look, opened: ReadonlySet<string>): HTMLElement {
  const row = el('div', `lv-row lv-${e.stream}`)
  row.dataset.seq = String(e.first)
  const n = document.createElement('a')
  n.className = 'lv-n'
  n.href = `#L${e.first}`
  n.textContent = String(e.first)
  n.tabIndex = -1
  n.title = 'Link to this line (Shift: select a range)'
  row.append(n)
  if (look.times !== 'off') {
    const t = el('span', 'lv-t', look.times === 'clock' ? clockTime(e.timestamp) : sinceTime(e.timestamp, look.start))
    t.title = new Date(e.timestamp).toLocaleString()
    row.append(t)
  }
  const m = el('span', 'lv-m', look.attempts && e.stream === 'system' ? `sys·${e.attempt}` : marks[e.stream])
  if (markTitles[e.stream]) m.title = markTitles[e.stream]
  row.append(m)
  const x = el('div', 'lv-x')
  row.append(x)
  if (e.items) {
    row.classList.add('lv-items')
    e.items.forEach((item, i) => x.append(drawItem(item, `${e.first}.${i}`, opened)))
  } else {
    drawLine(x, e, opened)
  }
  return row
}

function drawLine(x: HTMLElement, e: Entry, opened: ReadonlySet<string>): void {
  const key = String(e.first)
  const cr = carriage(e.text)
  if (cr.updates > 0 && opened.has(`${key}.cr`)) {
    for (const part of e.text.split('\r').filter(p => p !== '')) {
      const line = el('div', 'lv-step')
      appendRuns(line, part)
      x.append(line)
    }
    x.append(button('fold', `${key}.cr`))
    return
  }
  const all = opened.has(`${key}.all`)
  appendRuns(x, all || cr.text.length <= cutAt ? cr.text : cr.text.slice(0, cutAt))
  if (cr.text.length > cutAt && !all)
    x.append(button(`show all ${Math.round(cr.text.length / 1000)} thousand characters`, `${key}.all`))
  if (cr.updates > 0)
    x.append(button(`${cr.updates} earlier`, `${key}.cr`, `Show ${cr.updates} earlier states of this line`))
  if (e.open) x.append(el('span', 'lv-open', '…'))
}

function block(cls: string, text: string, key: string, opened: ReadonlySet<string>): HTMLElement {
  const d = el('div', cls)
  const clean = plain(text)
  if (clean.length > cutAt && !opened.has(key)) {
    appendText(d, clean.slice(0, cutAt))
    d.append(button(`show all ${Math.round(clean.length / 1000)} thousand characters`, key))
  } else {
    appendText(d, clean)
  }
  return d
}

function fold(
  cls: string,
  key: string,
  opened: ReadonlySet<string>,
  head: (string | Node)[],
  body: () => Node[],
): HTMLElement {
  const d = el('div', cls)
  const b = el('button', 'lv-fold') as HTMLButtonElement
  b.type = 'button'
  b.dataset.open = key
  const open = opened.has(key)
  b.setAttribute('aria-expanded', String(open))
  b.append(el('span', 'lv-caret'), ...head)
  d.append(b)
  if (open) d.append(...body())
  return d
}

function drawItem(item: Item, key: string, opened: ReadonlySet<string>): HTMLElement {
  switch (item.kind) {
    case 'start':
      return el('div', 'it it-start', item.text)
    case 'text': {
      const d = el('div', `it it-text it-${item.role}`)
      d.append(
        el('div', 'it-who', item.role === 'assistant' ? 'Agent' : 'Prompt'),
        block('it-body', item.text, `${key}.a`, opened),
      )
      return d
    }
    case 'thinking':
      return fold(
        'it it-thinking',
        key,
        opened,
        [
          el('span', 'it-name', 'Thinking'),
          el('span', 'it-sum', item.text.trim().split('\n', 1)[0]?.slice(0, 140) ?? ''),
        ],
        () => [block('it-body', item.text, `${key}.a`, opened)],
      )
    case 'tool': {
      const state = !item.done ? 'running or unanswered' : item.failed ? 'failed' : 'done'
      const mark = el(
        'span',
        `it-state ${!item.done ? 'is-open' : item.failed ? 'is-bad' : 'is-good'}`,
        !item.done ? '…' : item.failed ? 'failed' : '✓',
      )
      mark.title = state
      return fold(
        'it it-tool',
        key,
        opened,
        [el('span', 'it-name', item.name || 'Tool'), el('span', 'it-sum', item.summary), mark],
        () => [
          el('div', 'it-label', 'Input'),
          block('it-pre', item.input, `${key}.i`, opened),
          ...(item.result !== undefined
            ? [
                el('div', 'it-label', item.failed ? 'Error' : 'Result'),
                block(`it-pre${item.failed ? ' is-bad' : ''}`, item.result || '(nothing)', `${key}.r`, opened),
              ]
            : []),
        ],
      )
    }
    case 'result-of':
      return fold(
        'it it-tool',
        key,
        opened,
        [
          el('span', 'it-name', item.failed ? 'Tool error' : 'Tool result'),
          el('span', 'it-sum', item.text.split('\n', 1)[0]?.slice(0, 140) ?? ''),
        ],
        () => [block(`it-pre${item.failed ? ' is-bad' : ''}`, item.text, `${key}.r`, opened)],
      )
    case 'partial':
      return fold(
        'it it-note',
        key,
        opened,
        [el('span', 'it-name', 'Streamed'), el('span', 'it-sum', item.text.slice(-140))],
        () => [block('it-pre', item.text || '(no text)', `${key}.a`, opened)],
      )
    case 'limit':
      return el('div', 'it it-limit', item.text)
    case 'error':
      return block('it it-error', item.text, `${key}.a`, opened)
    case 'note':
      return el('div', 'it it-note', item.text)
    case 'end': {
      const d = el('div', `it it-end ${item.ok ? 'is-good' : 'is-bad'}`)
      d.append(el('div', 'it-who', item.ok ? 'Result' : 'Error'))
      if (item.text) d.append(block('it-body', item.text, `${key}.a`, opened))
      if (item.facts.length > 0) d.append(el('div', 'it-facts', item.facts.join(' · ')))
      return d
    }
  }
}
