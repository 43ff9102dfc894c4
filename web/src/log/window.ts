import { EntryBuilder, type Entry } from './entries'
import type { LogLine } from './types'

// What is held in memory of a log, in lines and in characters.
export const maxLines = 6000
export const maxChars = 24 << 20
const step = 1000

export type Fetch = (after: number, limit: number) => Promise<{ lines: LogLine[]; next_after: number }>

/**
 * A window of a log: the lines behind `after` up to `upTo`, without a gap.
 * Everything else is fetched when it is needed.
 */
export class LogWindow {
  after = 0
  upTo = 0
  lines: LogLine[] = []
  private chars = 0
  private builder: EntryBuilder
  /** Grows whenever indexes of entries may have moved. */
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
    this.chars = lines.reduce((n, l) => n + l.content.length, 0)
    this.rebuild()
  }

  /** Puts lines behind the window that follow it directly. */
  append(lines: readonly LogLine[], upTo: number): void {
    this.upTo = upTo
    for (const l of lines) this.chars += l.content.length
    this.lines.push(...lines)
    this.builder.add(lines)
  }

  prepend(lines: readonly LogLine[], after: number): void {
    this.after = after
    for (const l of lines) this.chars += l.content.length
    this.lines = [...lines, ...this.lines]
    this.rebuild()
  }

  get full(): boolean {
    return this.lines.length > maxLines || this.chars > maxChars
  }

  /** Lets go of lines at one end until the window is small again, but of none between keep. */
  trim(end: 'top' | 'bottom', keepFrom: number, keepTo: number): boolean {
    if (!this.full) return false
    let n = this.lines.length
    let chars = this.chars
    if (end === 'top') {
      let i = 0
      while (i < this.lines.length && this.lines[i]!.seq < keepFrom && (n > maxLines / 2 || chars > maxChars / 2)) {
        chars -= this.lines[i]!.content.length
        n--
        i++
      }
      if (i === 0) return false
      this.after = this.lines[i - 1]!.seq
      this.lines = this.lines.slice(i)
    } else {
      let i = this.lines.length
      while (i > 0 && this.lines[i - 1]!.seq > keepTo && (n > maxLines / 2 || chars > maxChars / 2)) {
        chars -= this.lines[i - 1]!.content.length
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

/** Fetches the lines behind `after` up to `upTo`; less if they are very long. */
export async function fetchRange(fetch: Fetch, after: number, upTo: number): Promise<{ lines: LogLine[]; upTo: number }> {
  const lines: LogLine[] = []
  let at = after
  let chars = 0
  while (at < upTo && chars < 8 << 20) {
    const page = await fetch(at, Math.min(5000, Math.max(1, upTo - at)))
    if (page.next_after <= at) {
      at = upTo // the numbers up to there were never given away
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

/** The latest lines of the stream, to go on from where the window ends. */
export class Tail {
  after = 0
  lines: LogLine[] = []
  private known = false

  /** Says where the stream began. */
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

  /** Number of the last line that came. */
  get end(): number {
    return this.lines.at(-1)?.seq ?? this.after
  }

  /** The lines behind `after`, if the tail reaches back so far. */
  behind(after: number): LogLine[] | undefined {
    if (!this.known || after < this.after) return undefined
    const i = this.lines.findIndex(l => l.seq > after)
    return i < 0 ? [] : this.lines.slice(i)
  }
}
