import { EntryBuilder, type Entry } from './entries'
import type { LogLine } from './types'

// Limits of the part of a log in memory, in lines and characters.
export const maxLines = 6000
export const maxChars = 24 << 20
const step = 1000

/** Approximate size of a line in memory: its events repeat its content. */
const sizeOf = (l: LogLine): number => l.content.length * (l.events ? 2 : 1)

export type Fetch = (after: number, limit: number) => Promise<{ lines: LogLine[]; next_after: number }>

/**
 * A window of a log: the lines after `after` up to `upTo`, without a gap. Other lines are
 * fetched on demand.
 */
export class LogWindow {
  after = 0
  upTo = 0
  lines: LogLine[] = []
  private chars = 0
  private builder: EntryBuilder
  /** Incremented when indexes of entries may have changed. */
  generation = 0

  constructor(private structured: boolean) {
    this.builder = new EntryBuilder(structured)
  }

  get entries(): Entry[] {
    return this.builder.entries
  }

  setStructured(on: boolean): void {
    if (this.structured === on) return
    this.structured = on
    this.rebuild()
  }

  reset(lines: LogLine[], after: number, upTo: number): void {
    this.lines = lines
    this.after = after
    this.upTo = upTo
    this.chars = lines.reduce((n, l) => n + sizeOf(l), 0)
    this.rebuild()
  }

  /** Appends lines that directly follow the window. */
  append(lines: readonly LogLine[], upTo: number): void {
    this.upTo = upTo
    for (const l of lines) this.chars += sizeOf(l)
    this.lines.push(...lines)
    this.builder.add(lines)
  }

  prepend(lines: readonly LogLine[], after: number): void {
    this.after = after
    for (const l of lines) this.chars += sizeOf(l)
    this.lines = [...lines, ...this.lines]
    this.rebuild()
  }

  get full(): boolean {
    return this.lines.length > maxLines || this.chars > maxChars
  }

  /** Removes lines at one end until the window is within its limits, except those between keep. */
  trim(end: 'top' | 'bottom', keepFrom: number, keepTo: number): boolean {
    if (!this.full) return false
    let n = this.lines.length
    let chars = this.chars
    if (end === 'top') {
      let i = 0
      while (i < this.lines.length && this.lines[i]!.seq < keepFrom && (n > maxLines / 2 || chars > maxChars / 2)) {
        chars -= sizeOf(this.lines[i]!)
        n--
        i++
      }
      if (i === 0) return false
      this.after = this.lines[i - 1]!.seq
      this.lines = this.lines.slice(i)
    } else {
      let i = this.lines.length
      while (i > 0 && this.lines[i - 1]!.seq > keepTo && (n > maxLines / 2 || chars > maxChars / 2)) {
        chars -= sizeOf(this.lines[i - 1]!)
        n--
        i--
      }
      if (i === this.lines.length) return false
      this.lines = this.lines.slice(0, i)
      this.upTo = this.lines.at(-1)?.seq ?? this.after
    }
    this.chars = chars
    this.rebuild()
    return true
  }

  private rebuild(): void {
    this.builder = new EntryBuilder(this.structured)
    this.builder.add(this.lines)
    this.generation++
  }
}

/** Fetches the lines after `after` up to `upTo`; fewer if they are very long. */
export async function fetchRange(
  fetch: Fetch,
  after: number,
  upTo: number,
): Promise<{ lines: LogLine[]; upTo: number }> {
  const lines: LogLine[] = []
  let at = after
  let chars = 0
  while (at < upTo && chars < 8 << 20) {
    const page = await fetch(at, Math.min(5000, Math.max(1, upTo - at)))
    if (page.next_after <= at) {
      at = upTo // the numbers up to there were never used
      break
    }
    for (const l of page.lines) {
      if (l.seq > upTo) break
      lines.push(l)
      chars += l.content.length
    }
    at = Math.min(upTo, page.next_after)
  }
  return { lines, upTo: at }
}

/** The latest lines of the stream, to extend the window. */
export class Tail {
  after = 0
  lines: LogLine[] = []
  private known = false

  /** Sets the start of the stream. */
  start(after: number): void {
    if (this.known) return
    this.known = true
    this.after = after
  }

  add(lines: readonly LogLine[]): void {
    this.lines.push(...lines)
    if (this.lines.length > 2 * step) {
      const gone = this.lines.length - step
      this.after = this.lines[gone - 1]!.seq
      this.lines = this.lines.slice(gone)
    }
  }

  /** Number of the last received line. */
  get end(): number {
    return this.lines.at(-1)?.seq ?? this.after
  }

  /** Returns the lines after `after`, if the tail reaches back that far. */
  behind(after: number): LogLine[] | undefined {
    if (!this.known || after < this.after) return undefined
    const i = this.lines.findIndex(l => l.seq > after)
    return i < 0 ? [] : this.lines.slice(i)
  }
}
