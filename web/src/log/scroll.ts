/**
 * The arithmetic between a place in a log and the scroll bar. A browser lays
 * out no element higher than some tens of millions of pixels, which a long log
 * would need: beyond maxHeight the bar is a scale of the log, and the rows are
 * moved by hand.
 */
export const maxHeight = 8_000_000

/** Height of the scrolled element, for a number of rows of a height. */
export function trackHeight(rows: number, row: number, view: number): number {
  return Math.max(view, Math.min(rows * row, maxHeight))
}

/** The scroll position at which a place stands at the top. top counts rows, with fractions. */
export function toScroll(top: number, rows: number, row: number, view: number): number {
  const range = trackHeight(rows, row, view) - view
  const last = Math.max(0, rows - view / row) // the place at the top when the end is at the bottom
  if (last === 0 || range <= 0) return 0
  return Math.min(1, Math.max(0, top / last)) * range
}

/** The place that a scroll position stands for. */
export function fromScroll(scroll: number, rows: number, row: number, view: number): number {
  const range = trackHeight(rows, row, view) - view
  const last = Math.max(0, rows - view / row)
  if (range <= 0) return 0
  return Math.min(1, Math.max(0, scroll / range)) * last
}

/** A place among entries: the top of entry `index` is `offset` pixels above the top of the view. */
export interface Anchor {
  index: number
  offset: number
}

/** Moves a place by pixels; stops at both ends. */
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

/** The last place: the end of the last entry is at the bottom of the view. */
export function endPlace(count: number, view: number, heightOf: (i: number) => number): Anchor {
  let index = count
  let sum = 0
  while (index > 0 && sum < view) sum += heightOf(--index)
  return { index: Math.max(0, index), offset: Math.max(0, sum - view) }
}

/** Whether place a is at or behind place b. */
export function reached(a: Anchor, b: Anchor, slack = 1): boolean {
  return a.index > b.index || (a.index === b.index && a.offset >= b.offset - slack)
}
