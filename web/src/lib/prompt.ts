/** A {name} in a template, or a {{name}}, which is literal text. */
export interface Field {
  start: number
  end: number
  name: string
  literal: boolean
}

const pattern = /\{\{([A-Za-z][A-Za-z0-9_.]*)\}\}|\{([A-Za-z][A-Za-z0-9_.]*)\}/g

/** Returns the placeholders of a template by the server's rules: other braces are text. */
export function fieldsOf(template: string): Field[] {
  return [...template.matchAll(pattern)].map(m => ({
    start: m.index,
    end: m.index + m[0].length,
    name: (m[1] ?? m[2])!,
    literal: m[1] !== undefined,
  }))
}

/** Reports whether a placeholder has a value when a trigger fires. */
export function fills(name: string, known: readonly string[]): boolean {
  return known.includes(name) || (name.startsWith('vars.') && name.length > 5)
}

export interface Wrong {
  name: string
  start: number
  end: number
  /** The most similar placeholder. */
  near: string
}

/** Returns the placeholders of a template that have no value. */
export function checkTemplate(template: string, known: readonly string[]): Wrong[] {
  return fieldsOf(template)
    .filter(f => !f.literal && !fills(f.name, known))
    .map(({ name, start, end }) => ({ name, start, end, near: nearest(name, known) }))
}

/** Returns the names after vars. in a template, each once. */
export function varsOf(template: string): string[] {
  return [
    ...new Set(
      fieldsOf(template)
        .filter(f => !f.literal && f.name.startsWith('vars.') && f.name.length > 5)
        .map(f => f.name.slice(5)),
    ),
  ]
}

/** Returns the known word within two edits or a third of the word's length; "" if there is none. */
export function nearest(word: string, known: readonly string[]): string {
  let best = ''
  let at = Math.max(2, Math.floor(word.length / 3)) + 1
  for (const k of known) {
    const d = distance(word.toLowerCase(), k.toLowerCase())
    if (d < at) [best, at] = [k, d]
  }
  return best
}

function distance(a: string, b: string): number {
  const row = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 0; i < a.length; i++) {
    let diagonal = row[0]!
    row[0] = i + 1
    for (let j = 0; j < b.length; j++) {
      const cost = a[i] === b[j] ? diagonal : 1 + Math.min(diagonal, row[j]!, row[j + 1]!)
      diagonal = row[j + 1]!
      row[j + 1] = cost
    }
  }
  return row[b.length]!
}

/** Returns the text before the caret that may become a placeholder. */
export function typedBefore(template: string, caret: number): { start: number; part: string } | undefined {
  const m = /(^|[^{])\{([A-Za-z][A-Za-z0-9_.]*|)$/.exec(template.slice(0, caret))
  return m ? { start: caret - m[2]!.length - 1, part: m[2]! } : undefined
}
