// Builds the state of a conversation from its events: messages, each with the turn that
// answers it. Has no side effects.
import type { Usage } from '@/api/client'

export interface TextPart {
  kind: 'text' | 'thinking'
  text: string
  truncated?: boolean
}
export interface ToolPart {
  kind: 'tool'
  id: string
  tool: string
  input?: unknown
  output?: string
  state: 'called' | 'answered' | 'failed'
}
export type Part = TextPart | ToolPart

export interface Turn {
  execution: string
  parts: Part[]
  status: string
  reason: string
  until: string
  error: string
  /** The complete answer; older turns may have nothing else. */
  answer: string
  line: number
  end?: { status: string; reason: string; duration: number | undefined; usage: Usage | undefined; attempts: number }
}

export interface Entry {
  /** Number of the message; 0 if only its turn is stored. */
  number: number
  text: string
  files: string[]
  actor: string
  at: string
  /** Why the message was withdrawn or rejected. */
  dropped: string
  turn: Turn | undefined
  /** Incremented with each change, so that only changed entries are redrawn. */
  rev: number
}

interface Raw {
  id: number
  event: string
  data: Record<string, unknown>
}

const text = (v: unknown): string => (typeof v === 'string' ? v : '')

export class ConversationState {
  entries: Entry[] = []
  /** Id of the last event. */
  last = 0
  closed = ''
  /** The beginning is no longer stored completely. */
  truncated = false
  private byNumber = new Map<number, Entry>()
  private byTurn = new Map<string, Entry>()

  /** Applies an event; returns false if it is already known. */
  take(event: string, id: number, data: Record<string, unknown>): boolean {
    if (event === 'full_sync') {
      if (id < this.last) return false
      const events = (data.events ?? []) as Raw[]
      this.entries = []
      this.byNumber.clear()
      this.byTurn.clear()
      this.truncated = data.truncated === true
      this.closed = ''
      for (const e of events) this.apply(e.event, { timestamp: (e as { timestamp?: string }).timestamp, ...e.data })
      this.last = id
      return true
    }
    if (id <= this.last) return false
    this.last = id
    this.apply(event, data)
    return true
  }

  /** The running turn, if there is one. */
  get running(): Entry | undefined {
    return this.entries.findLast(e => e.turn && !e.turn.end)
  }

  /** Messages that wait for their turn. */
  get waiting(): number {
    return this.entries.filter(e => e.number > 0 && !e.turn && !e.dropped).length
  }

  private entryOf(execution: string): Entry | undefined {
    if (!execution) return undefined
    let e = this.byTurn.get(execution)
    if (!e) {
      e = { number: 0, text: '', files: [], actor: '', at: '', dropped: '', turn: newTurn(execution), rev: 0 }
      this.entries.push(e)
      this.byTurn.set(execution, e)
    }
    return e
  }

  private apply(event: string, data: Record<string, unknown>): void {
    const execution = text(data.execution_id)
    const number = typeof data.number === 'number' ? data.number : 0
    if (event === 'message' && data.role === 'user') {
      const known = this.byNumber.get(number)
      const e: Entry = {
        number,
        text: text(data.text),
        files: Array.isArray(data.files) ? data.files.map(String) : [],
        actor: text(data.actor),
        at: text(data.timestamp),
        dropped: '',
        turn: known?.turn,
        rev: (known?.rev ?? 0) + 1,
      }
      if (known) Object.assign(known, e)
      else {
        this.entries.push(e)
        this.byNumber.set(number, e)
      }
      return
    }
    if (event === 'status_change') {
      const status = text(data.status)
      if (status === 'closed') this.closed = text(data.reason) || 'closed'
      else if (status === 'open') this.closed = ''
      else if (status === 'taken_back') {
        for (const e of this.entries) {
          if (e.number === 0 || e.turn || e.dropped) continue
          e.dropped = `Withdrawn${data.actor ? ` by ${text(data.actor)}` : ''}.`
          e.rev++
        }
      } else if (execution) {
        const said = status === 'queued' && number > 0 ? this.byNumber.get(number) : undefined
        if (said && !said.turn && !this.byTurn.has(execution)) {
          said.turn = newTurn(execution)
          this.byTurn.set(execution, said)
        }
        const e = this.entryOf(execution)!
        const turn = e.turn!
        turn.status = status
        turn.reason = text(data.reason)
        turn.until = text(data.until)
        e.rev++
      }
      return
    }
    if (event === 'error' && !execution) {
      const e = this.byNumber.get(number)
      if (e) {
        e.dropped = text(data.message) || 'Rejected.'
        e.rev++
      }
      return
    }
    const e = this.entryOf(execution)
    if (!e) return
    const turn = e.turn!
    e.rev++
    if (typeof data.line === 'number') turn.line = data.line
    if (event === 'message') turn.answer = text(data.text)
    else if (event === 'error') turn.error = text(data.message)
    else if (event === 'content_delta') addText(turn, data)
    else if (event === 'tool_call') addTool(turn, data)
    else if (event === 'finish') {
      turn.status = text(data.status)
      turn.end = {
        status: text(data.status),
        reason: text(data.reason),
        duration: typeof data.duration_ms === 'number' ? data.duration_ms : undefined,
        usage: (data.usage ?? undefined) as Usage | undefined,
        attempts: typeof data.attempts === 'number' ? data.attempts : 1,
      }
    }
  }
}

function newTurn(execution: string): Turn {
  return { execution, parts: [], status: 'queued', reason: '', until: '', error: '', answer: '', line: 0 }
}

function addText(turn: Turn, data: Record<string, unknown>): void {
  const kind = data.thinking === true ? 'thinking' : 'text'
  const last = turn.parts.at(-1)
  // A complete message is a new part; pieces extend the last one.
  if (last?.kind === kind && data.end !== true && !(last as { whole?: boolean }).whole) last.text += text(data.text)
  else {
    const part: TextPart & { whole?: boolean } = { kind, text: text(data.text) }
    if (data.end === true) part.whole = true
    turn.parts.push(part)
  }
  if (data.truncated === true) (turn.parts.at(-1) as TextPart).truncated = true
}

function addTool(turn: Turn, data: Record<string, unknown>): void {
  const id = text(data.id)
  const state = (text(data.state) || 'called') as ToolPart['state']
  const known = id ? turn.parts.findLast((p): p is ToolPart => p.kind === 'tool' && p.id === id) : undefined
  const part: ToolPart = known ?? { kind: 'tool', id, tool: text(data.tool) || 'a tool', state }
  part.state = state
  if ('input' in data) part.input = data.input
  if ('output' in data) part.output = text(data.output)
  if (!known) turn.parts.push(part)
}

/** Returns the visible parts of a turn, with the complete answer if the pieces lack it. */
export function shown(turn: Turn): Part[] {
  if (!turn.answer) return turn.parts
  const squeeze = (s: string) => s.replace(/\s+/g, ' ').trim()
  const all = squeeze(turn.parts.map(p => (p.kind === 'text' ? p.text : ' ')).join(' '))
  const joined = squeeze(turn.parts.map(p => (p.kind === 'text' ? p.text : '')).join(''))
  const answer = squeeze(turn.answer)
  if (all.includes(answer) || joined.includes(answer)) return turn.parts
  // The answer contains the complete text of a truncated piece.
  const parts =
    turn.parts.at(-1)?.kind === 'text' && (turn.parts.at(-1) as TextPart).truncated
      ? turn.parts.slice(0, -1)
      : turn.parts
  return [...parts, { kind: 'text', text: turn.answer }]
}

/** Summarises the input of a tool call in one line. */
export function inShort(input: unknown): string {
  if (input === undefined || input === null) return ''
  if (typeof input === 'string') return oneLine(input)
  if (typeof input === 'object') {
    const o = input as Record<string, unknown>
    for (const k of ['command', 'file_path', 'path', 'pattern', 'query', 'url', 'description', 'prompt'])
      if (typeof o[k] === 'string') return oneLine(o[k] as string)
  }
  return oneLine(JSON.stringify(input))
}
const oneLine = (s: string) => {
  const line = s.replace(/\s+/g, ' ').trim()
  return line.length > 160 ? `${line.slice(0, 160)}…` : line
}
