import type { Schemas } from '@/api/client'

export type AgentEvent = Schemas['Event']

/** One item of an agent's activity, as a row shows it. */
export type Item =
  | { kind: 'start'; text: string }
  | { kind: 'text'; role: 'assistant' | 'user'; text: string; delta?: boolean }
  | { kind: 'thinking'; text: string }
  | {
      kind: 'tool'
      id: string
      name: string
      summary: string
      input: string
      result?: string
      failed?: boolean
      done?: boolean
    }
  | { kind: 'result-of'; id: string; text: string; failed: boolean }
  | { kind: 'limit'; text: string }
  | { kind: 'error'; text: string }
  | { kind: 'note'; text: string }
  | { kind: 'partial'; text: string }
  | { kind: 'end'; ok: boolean; text: string; facts: string[] }

const pretty = (v: unknown): string => (typeof v === 'string' ? v : (JSON.stringify(v, null, 2) ?? ''))

/** Returns the most informative part of a tool's input in one line. */
export function summaryOf(input: unknown): string {
  if (typeof input === 'string') return oneLine(input)
  if (typeof input !== 'object' || input === null || Array.isArray(input)) return ''
  const fields = input as Record<string, unknown>
  for (const key of [
    'command',
    'cmd',
    'pattern', // what was searched says more than where
    'query',
    'file_path',
    'filePath',
    'path',
    'absolute_path',
    'url',
    'description',
    'prompt',
    'title',
  ]) {
    const v = fields[key]
    if (typeof v === 'string' && v) return oneLine(v)
    if (Array.isArray(v) && v.every(x => typeof x === 'string')) return oneLine(v.join(' '))
  }
  const first = Object.values(fields).find(v => typeof v === 'string' && v)
  return first ? oneLine(first as string) : ''
}

function oneLine(s: string): string {
  const line = s.trim().split('\n', 1)[0] ?? ''
  return line.length > 160 ? `${line.slice(0, 160)}…` : line
}

const seconds = (ms: number | undefined): string => (ms === undefined ? '' : `${(ms / 1000).toFixed(1)} s`)
const words = (s: string | undefined): string => (s ?? '').replaceAll('_', ' ')
const listed = (...parts: (string | undefined | false)[]): string[] => parts.filter((p): p is string => !!p)

type Usage = NonNullable<AgentEvent['usage']>

function tokensOf(u: Usage | undefined): string {
  if (u?.input_tokens == null && u?.output_tokens == null) return ''
  const cached = u.cache_read_tokens ? ` (and ${u.cache_read_tokens} cached)` : ''
  return `${u.input_tokens ?? '?'} tokens in${cached}, ${u.output_tokens ?? '?'} out`
}

const costOf = (u: Usage | undefined): string => (u?.cost_usd == null ? '' : `$${u.cost_usd.toFixed(4)}`)

/** Returns the items of the events of one line; undefined if the line is shown as it is. */
export function itemsOf(events: readonly AgentEvent[] | undefined): Item[] | undefined {
  const items: Item[] = []
  let usage: Usage | undefined
  for (const e of events ?? []) {
    if (e.kind === 'unknown') return undefined
    if (e.kind === 'usage') usage = e.usage
    const item = itemOf(e, usage)
    if (item) items.push(item)
  }
  return items.length > 0 ? items : undefined
}

function itemOf(e: AgentEvent, usage: Usage | undefined): Item | undefined {
  const text = e.text ?? ''
  switch (e.kind) {
    case 'session':
      return { kind: 'start', text: startOf(e) }
    case 'message':
      return {
        kind: 'text',
        role: e.role === 'user' ? 'user' : 'assistant',
        text,
        ...(e.piece ? { delta: true } : {}),
      }
    case 'reasoning':
      return { kind: 'thinking', text: e.hidden ? '(not shown by the provider)' : text }
    case 'delta':
      return { kind: 'partial', text }
    case 'tool_call':
      return toolOf(e)
    case 'tool_result':
      return resultOf(e)
    case 'denied':
      if (e.repeated) return undefined
      return { kind: 'error', text: `${e.tool || 'A tool'} was not permitted${text ? `: ${text}` : ''}` }
    case 'limit':
      return { kind: 'limit', text: limitOf(e) }
    case 'retry':
      return { kind: e.failed ? 'error' : 'limit', text: text || retryOf(e) }
    case 'error':
      return { kind: e.http_status === 429 ? 'limit' : 'error', text }
    case 'warning':
      return { kind: 'error', text }
    case 'result':
      return {
        kind: 'end',
        ok: !e.failed,
        text: text || (e.detail ?? ''),
        facts: listed(
          e.failed && e.reason !== 'success' && e.reason,
          e.turns !== undefined && `${e.turns} turns`,
          seconds(e.duration_ms),
          costOf(e.usage ?? usage),
          tokensOf(e.usage ?? usage),
        ),
      }
    case 'turn':
      return { kind: 'note', text: 'Turn started' }
    case 'step_started':
      return { kind: 'note', text: 'Step started' }
    case 'step':
      return {
        kind: 'note',
        text: listed('Step finished', e.reason && `(${e.reason})`, tokensOf(usage), costOf(usage)).join(' · '),
      }
    case 'note':
      return text ? { kind: 'note', text } : undefined
  }
  return undefined
}

function startOf(e: AgentEvent): string {
  if (!e.model && !e.folder && e.session_id) return `Session started: ${e.session_id}`
  return listed(
    'Session started',
    e.model && `with ${e.model}`,
    e.folder && `in ${e.folder}`,
    e.mode && `(${e.mode})`,
  ).join(' ')
}

function toolOf(e: AgentEvent): Extract<Item, { kind: 'tool' }> {
  const input = e.arguments ?? e.input
  return {
    kind: 'tool',
    id: e.id ?? '',
    name: e.title || e.tool || '',
    summary: e.summary || summaryOf(input),
    input: pretty(input),
  }
}

/** Returns the result of a tool; with the tool if the CLI repeats it. */
function resultOf(e: AgentEvent): Item {
  const result = (e.text || (e.detail ?? '')) + (e.exit_code ? `\n(exit code ${e.exit_code})` : '')
  const failed = !!e.failed || !!e.refused
  if (e.tool) return { ...toolOf(e), result, failed, done: true }
  return { kind: 'result-of', id: e.id ?? '', text: result, failed }
}

function limitOf(e: AgentEvent): string {
  const resets = e.resets_at ?? 0
  return (
    `Usage limit${e.window ? ` (${words(e.window)})` : ''}: ${e.status || 'reported'}` +
    (resets ? `, resets at ${new Date(resets * (resets < 1e12 ? 1000 : 1)).toLocaleString()}` : '')
  )
}

function retryOf(e: AgentEvent): string {
  return (
    `The model API returned ${e.http_status ?? (e.api_error || 'an error')}${e.api_error ? ` (${words(e.api_error)})` : ''}: ` +
    `retry ${e.attempt ?? '?'} of ${e.attempts ?? '?'} in ${seconds(e.retry_after_ms)}`
  )
}
