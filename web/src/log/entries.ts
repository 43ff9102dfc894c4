import { itemsOf, type AgentEvent, type Item } from './agent'
import type { LogLine } from './types'

/** One row: a line with its parts joined, or items of an agent. */
export interface Entry {
  /** Numbers of the first and last line of the entry. */
  first: number
  last: number
  attempt: number
  timestamp: string
  stream: LogLine['stream']
  text: string
  /** The last part has not arrived. */
  open: boolean
  /** Set if the line is shown as agent activity. */
  items?: Item[]
  /** Incremented when the entry changes and must be redrawn. */
  version: number
  /** Measured height in pixels; 0: not measured. */
  height: number
}

// Joined lines are kept in memory; longer ones are shown in pieces.
const maxJoined = 4 << 20

/** Builds entries from lines in order. */
export class EntryBuilder {
  readonly entries: Entry[] = []
  private cut = new Map<string, Entry>()
  private tools = new Map<string, { entry: Entry; item: Extract<Item, { kind: 'tool' }> }>()

  constructor(private readonly structured: boolean) {}

  add(lines: readonly LogLine[]): void {
    for (const l of lines) this.line(l)
  }

  private line(l: LogLine): void {
    const key = `${l.attempt} ${l.stream}`
    if (l.part === 'middle' || l.part === 'last') {
      const e = this.cut.get(key)
      if (e && e.text.length + l.content.length < maxJoined) {
        e.text += l.content
        e.last = l.seq
        e.version++
        e.height = 0
        if (l.part === 'last') {
          e.open = false
          this.cut.delete(key)
          this.read(e, l.events)
        }
        return
      }
      if (e) e.open = false
    }
    const e: Entry = {
      first: l.seq,
      last: l.seq,
      attempt: l.attempt,
      timestamp: l.timestamp,
      stream: l.stream,
      text: l.content,
      open: l.part === 'first' || l.part === 'middle',
      version: 0,
      height: 0,
    }
    this.cut.delete(key)
    this.entries.push(e)
    if (e.open) this.cut.set(key, e)
    else this.read(e, l.events)
  }

  /** Adds the events of a complete line to the right entry. */
  private read(e: Entry, events: readonly AgentEvent[] | undefined): void {
    if (!this.structured) return
    const items = itemsOf(events)
    if (!items) return
    const at = this.entries.lastIndexOf(e)
    const before = this.entries[at - 1]
    const rest: Item[] = []
    for (const item of items) {
      if (item.kind === 'result-of') {
        const call = this.tools.get(item.id)
        if (call && item.id) {
          call.item.result = item.text
          call.item.failed = item.failed
          call.item.done = true
          this.touch(call.entry, e)
          continue
        }
      }
      if (item.kind === 'tool' && item.id) {
        const call = this.tools.get(item.id)
        if (call && call.entry.attempt === e.attempt) {
          // A later state of the same call.
          Object.assign(call.item, item)
          this.touch(call.entry, e)
          continue
        }
        this.tools.set(item.id, { entry: e, item })
      }
      const last = before?.items?.at(-1)
      if (before && last && before.attempt === e.attempt && rest.length === 0 && items.length === 1) {
        if (last.kind === 'partial' && item.kind === 'partial') {
          last.text += item.text
          this.touch(before, e)
          continue
        }
        if (last.kind === 'text' && item.kind === 'text' && last.delta && item.delta && last.role === item.role) {
          last.text += item.text
          this.touch(before, e)
          continue
        }
      }
      rest.push(item)
    }
    if (rest.length === 0) {
      // Everything is shown in other entries.
      this.entries.splice(at, 1)
      return
    }
    e.items = rest
    e.version++
  }

  private touch(e: Entry, by: Entry): void {
    e.version++
    e.height = 0
    // Only adjacent entries are extended, so that the lines between keep their numbers.
    if (this.entries[this.entries.length - 2] === e) e.last = Math.max(e.last, by.last)
  }
}

/** Returns the index of the entry that shows a line: the last one that starts at or before it. */
export function entryOf(entries: readonly Entry[], seq: number): number {
  let lo = 0
  let hi = entries.length
  while (lo < hi) {
    const mid = (lo + hi) >> 1
    if (entries[mid]!.first <= seq) lo = mid + 1
    else hi = mid
  }
  return Math.max(0, lo - 1)
}
