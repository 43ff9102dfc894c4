/**
 * Converts between positions in a log and the scroll bar. Browsers limit the height of
 * an element to some tens of millions of pixels, which is too little for a long log.
 * Beyond maxHeight the bar is scaled, and rows are positioned explicitly.
 */
export const maxHeight = 8_000_000

/** Returns the height of the scrolled element. */
export function trackHeight(rows: number, row: number, view: number): number {
  return Math.max(view, Math.min(rows * row, maxHeight))
}

/** Returns the scroll position that shows a position at the top. top is a fractional row number. */
export function toScroll(top: number, rows: number, row: number, view: number): number {
  const range = trackHeight(rows, row, view) - view
  const last = Math.max(0, rows - view / row) // position at the top when the end is at the bottom
  if (last === 0 || range <= 0) return 0
  return Math.min(1, Math.max(0, top / last)) * range
}

/** Returns the position for a scroll offset. */
export function fromScroll(scroll: number, rows: number, row: number, view: number): number {
  const range = trackHeight(rows, row, view) - view
  const last = Math.max(0, rows - view / row)
  if (range <= 0) return 0
  return Math.min(1, Math.max(0, scroll / range)) * last
}

/** A position among entries: the top of entry `index` is `offset` pixels above the top of the view. */
export interface Anchor {
  index: number
  offset: number
}

/** Moves a position by pixels; stops at both ends. */
export function move(a: Anchor, by: number, count: number, heightOf: (i: number) => number): Anchor {
  let { index, offset } = a
  offset += by
  while (offset < 0 && index > 0) {
    index--
    offset += heightOf(index)
  }
  if (offset < 0) offset = 0
  while (index < count - 1 && offset >= heightOf(index)) {
    offset -= heightOf(index)
    index++
  }
  return { index, offset }
}

/** Returns the last position: the end of the last entry is at the bottom of the view. */
export function endPlace(count: number, view: number, heightOf: (i: number) => number): Anchor {
  let index = count
  let sum = 0
  while (index > 0 && sum < view) sum += heightOf(--index)
  return { index: Math.max(0, index), offset: Math.max(0, sum - view) }
}

/** Reports whether position a is at or after position b. */
export function reached(a: Anchor, b: Anchor, slack = 1): boolean {
  return a.index > b.index || (a.index === b.index && a.offset >= b.offset - slack)
}
