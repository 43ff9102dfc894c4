/** Parses #L10 or #L10-L20. */
export function readHash(hash: string): [number, number] | undefined {
  const m = /^#L(\d{1,15})(?:-L?(\d{1,15}))?$/.exec(hash)
  if (!m) return undefined
  const a = Number(m[1])
  const b = m[2] === undefined ? a : Number(m[2])
  if (a < 1 || b < 1) return undefined
  return a <= b ? [a, b] : [b, a]
}

export function writeHash([a, b]: [number, number]): string {
  return a === b ? `#L${a}` : `#L${a}-L${b}`
}
