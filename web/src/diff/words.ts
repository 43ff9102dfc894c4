/** A part of a line; `changed` parts differ between the two versions of it. */
export interface Part {
  text: string
  changed: boolean
}

/** A line of a diff as it is drawn. */
export interface Row {
  kind: 'same' | 'old' | 'new' | 'note' | 'head'
  oldNo: number
  newNo: number
  parts: Part[]
}

export interface Hunk {
  old_start: number
  new_start: number
  heading: string
  lines: string[]
}

// Control characters, and characters that change the direction of text: they could make a line look
// like another one. Tabs are kept.
const unsafe = /[\u0000-\u0008\u000a-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g

/** Makes text of a repository safe to show. */
export function show(text: string): string {
  return text.replace(unsafe, '\uFFFD')
}

const token = /[\p{L}\p{N}_]+|\s+|[^\p{L}\p{N}_\s]/gu
const maxTokens = 300

/** Compares two versions of a line word by word. */
export function words(before: string, after: string): { before: Part[]; after: Part[] } {
  const whole = { before: [{ text: before, changed: false }], after: [{ text: after, changed: false }] }
  const a = before.match(token) ?? []
  const b = after.match(token) ?? []
  if (a.length > maxTokens || b.length > maxTokens) return whole
  let start = 0
  while (start < a.length && start < b.length && a[start] === b[start]) start++
  let end = 0
  while (end < a.length - start && end < b.length - start && a[a.length - 1 - end] === b[b.length - 1 - end]) end++
  const keepA = new Array<boolean>(a.length).fill(false)
  const keepB = new Array<boolean>(b.length).fill(false)
  for (let i = 0; i < start; i++) keepA[i] = keepB[i] = true
  for (let i = 1; i <= end; i++) keepA[a.length - i] = keepB[b.length - i] = true
  common(a.slice(start, a.length - end), b.slice(start, b.length - end), (i, j) => {
    keepA[start + i] = keepB[start + j] = true
  })
  // Lines with hardly anything in common are shown without marks.
  const letters = (list: string[], keep: boolean[]) =>
    list.reduce((n, t, i) => n + (keep[i] && t.trim() ? t.length : 0), 0)
  if (letters(a, keepA) * 4 < Math.max(before.trim().length, after.trim().length)) return whole
  return { before: merge(a, keepA), after: merge(b, keepB) }
}

/** Calls `each` for every pair of a longest common subsequence. */
function common(a: string[], b: string[], each: (i: number, j: number) => void): void {
  const width = b.length + 1
  const length = new Uint16Array((a.length + 1) * width)
  for (let i = a.length - 1; i >= 0; i--)
    for (let j = b.length - 1; j >= 0; j--)
      length[i * width + j] =
        a[i] === b[j]
          ? length[(i + 1) * width + j + 1]! + 1
          : Math.max(length[(i + 1) * width + j]!, length[i * width + j + 1]!)
  for (let i = 0, j = 0; i < a.length && j < b.length;)
    if (a[i] === b[j]) each(i++, j++)
    else if (length[(i + 1) * width + j]! >= length[i * width + j + 1]!) i++
    else j++
}

function merge(tokens: string[], keep: boolean[]): Part[] {
  const out: Part[] = []
  tokens.forEach((text, i) => {
    const last = out[out.length - 1]
    if (last && last.changed === !keep[i]) last.text += text
    else out.push({ text, changed: !keep[i] })
  })
  return out
}

/** Converts hunks to rows with line numbers and word changes. */
export function rowsOf(hunks: readonly Hunk[]): Row[] {
  const rows: Row[] = []
  for (const h of hunks) {
    rows.push({ kind: 'head', oldNo: 0, newNo: 0, parts: [{ text: show(h.heading), changed: false }] })
    let oldNo = h.old_start
    let newNo = h.new_start
    let removed: Row[] = []
    let added: Row[] = []
    const pair = () => {
      // Only blocks of equal length are versions of the same lines.
      if (removed.length === added.length)
        removed.forEach((r, i) => {
          const w = words(r.parts[0]?.text ?? '', added[i]!.parts[0]?.text ?? '')
          r.parts = w.before
          added[i]!.parts = w.after
        })
      removed = []
      added = []
    }
    for (const line of h.lines) {
      const parts = [{ text: show(line.slice(1)), changed: false }]
      if (line[0] === '-') {
        if (added.length) pair()
        const row: Row = { kind: 'old', oldNo: oldNo++, newNo: 0, parts }
        removed.push(row)
        rows.push(row)
      } else if (line[0] === '+') {
        const row: Row = { kind: 'new', oldNo: 0, newNo: newNo++, parts }
        added.push(row)
        rows.push(row)
      } else if (line[0] === '\\') {
        rows.push({ kind: 'note', oldNo: 0, newNo: 0, parts })
      } else {
        pair()
        rows.push({ kind: 'same', oldNo: oldNo++, newNo: newNo++, parts })
      }
    }
    pair()
  }
  return rows
}
