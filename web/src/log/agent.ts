/**
 * What agent CLIs print as lines of JSON, read into a few kinds of items. What
 * is not known is not read: it is then shown as it came.
 */
export type Item =
  | { kind: 'start'; text: string }
  | { kind: 'text'; role: 'assistant' | 'user'; text: string; delta?: boolean }
  | { kind: 'thinking'; text: string }
  | { kind: 'tool'; id: string; name: string; summary: string; input: string; result?: string; failed?: boolean; done?: boolean }
  | { kind: 'result-of'; id: string; text: string; failed: boolean }
  | { kind: 'limit'; text: string }
  | { kind: 'error'; text: string }
  | { kind: 'note'; text: string }
  | { kind: 'partial'; text: string }
  | { kind: 'end'; ok: boolean; text: string; facts: string[] }

type Obj = Record<string, unknown>
const isObj = (v: unknown): v is Obj => typeof v === 'object' && v !== null && !Array.isArray(v)
const str = (v: unknown): string => (typeof v === 'string' ? v : '')
const num = (v: unknown): number | undefined => (typeof v === 'number' ? v : undefined)
const obj = (v: unknown): Obj => (isObj(v) ? v : {})
const pretty = (v: unknown): string => (typeof v === 'string' ? v : (JSON.stringify(v, null, 2) ?? ''))

function textOf(content: unknown): string {
  if (typeof content === 'string') return content
  if (!Array.isArray(content)) return content === undefined || content === null ? '' : pretty(content)
  return content
    .map(c => (isObj(c) ? (c.type === 'text' ? str(c.text) : c.type === 'image' ? '[image]' : pretty(c)) : String(c)))
    .join('\n')
}

/** The part of a tool's input that says the most, on one line. */
export function summaryOf(input: unknown): string {
  if (typeof input === 'string') return oneLine(input)
  if (!isObj(input)) return ''
  for (const key of ['command', 'cmd', 'file_path', 'filePath', 'path', 'absolute_path', 'pattern', 'query', 'url', 'description', 'prompt', 'title']) {
    const v = input[key]
    if (typeof v === 'string' && v) return oneLine(v)
    if (Array.isArray(v) && v.every(x => typeof x === 'string')) return oneLine(v.join(' '))
  }
  const first = Object.values(input).find(v => typeof v === 'string' && v)
  return first ? oneLine(first as string) : ''
}

function oneLine(s: string): string {
  const line = s.trim().split('\n', 1)[0] ?? ''
  return line.length > 160 ? `${line.slice(0, 160)}…` : line
}

function seconds(ms: number | undefined): string {
  return ms === undefined ? '' : `${(ms / 1000).toFixed(1)} s`
}

function facts(...list: (string | undefined | false)[]): string[] {
  return list.filter((f): f is string => !!f)
}

/** Reads a line of a CLI's output. undefined: it is not one that is known. */
export function readAgentLine(line: string): Item[] | undefined {
  if (line.charCodeAt(0) !== 123 || line.length > 4_000_000) return undefined
  let o: unknown
  try {
    o = JSON.parse(line)
  } catch {
    return undefined
  }
  if (!isObj(o) || typeof o.type !== 'string') return undefined
  return claude(o) ?? codex(o) ?? gemini(o) ?? opencode(o)
}

function claude(o: Obj): Item[] | undefined {
  switch (o.type) {
    case 'system':
      return claudeSystem(o)
    case 'assistant':
    case 'user': {
      const content = obj(o.message).content
      const role = o.type === 'assistant' ? 'assistant' : 'user'
      if (typeof content === 'string') return [{ kind: 'text', role, text: content }]
      if (!Array.isArray(content)) return undefined
      const items: Item[] = []
      for (const c of content) {
        if (!isObj(c)) return undefined
        switch (c.type) {
          case 'text':
            items.push({ kind: 'text', role, text: str(c.text) })
            break
          case 'thinking':
            items.push({ kind: 'thinking', text: str(c.thinking) })
            break
          case 'redacted_thinking':
            items.push({ kind: 'thinking', text: '(not shown by the provider)' })
            break
          case 'tool_use':
          case 'server_tool_use':
          case 'mcp_tool_use':
            items.push({ kind: 'tool', id: str(c.id), name: str(c.name), summary: summaryOf(c.input), input: pretty(c.input) })
            break
          case 'tool_result':
          case 'mcp_tool_result':
          case 'web_search_tool_result':
            items.push({ kind: 'result-of', id: str(c.tool_use_id), text: textOf(c.content), failed: c.is_error === true })
            break
          default:
            return undefined
        }
      }
      return items.length > 0 ? items : undefined
    }
    case 'stream_event': {
      const e = obj(o.event)
      const d = obj(e.delta)
      return [{ kind: 'partial', text: str(d.text) || str(d.thinking) || str(d.partial_json) }]
    }
    case 'rate_limit_event': {
      const info = obj(o.rate_limit_info ?? o)
      const resets = num(info.resetsAt ?? info.resets_at)
      return [{
        kind: 'limit',
        text: `Usage limit${str(info.rateLimitType) ? ` (${str(info.rateLimitType).replaceAll('_', ' ')})` : ''}: ${str(info.status) || 'reported'}` +
          (resets ? `, resets at ${new Date(resets * (resets < 1e12 ? 1000 : 1)).toLocaleString()}` : ''),
      }]
    }
    case 'result':
      // Gemini's result has a status, Claude's a subtype.
      if (typeof o.subtype !== 'string') return undefined
      return [{
        kind: 'end',
        ok: o.is_error !== true && o.subtype === 'success',
        text: str(o.result) || (Array.isArray(o.errors) ? o.errors.map(pretty).join('\n') : ''),
        facts: facts(
          o.subtype !== 'success' && o.subtype.replaceAll('_', ' '),
          num(o.num_turns) !== undefined && `${String(o.num_turns)} turns`,
          seconds(num(o.duration_ms)),
          num(o.total_cost_usd) !== undefined && `$${num(o.total_cost_usd)!.toFixed(4)}`,
          tokensOf(obj(o.usage)),
        ),
      }]
  }
  return undefined
}

function claudeSystem(o: Obj): Item[] | undefined {
  switch (o.subtype) {
    case 'init':
      return [{ kind: 'start', text: ['Session started', str(o.model) && `with ${str(o.model)}`, str(o.cwd) && `in ${str(o.cwd)}`, str(o.permissionMode) && `(${str(o.permissionMode)})`].filter(Boolean).join(' ') }]
    case 'api_retry':
      return [{ kind: 'limit', text: `The model's API answered ${String(o.error_status ?? o.error ?? 'an error')}${o.error ? ` (${str(o.error).replaceAll('_', ' ')})` : ''}: try ${String(o.attempt)} of ${String(o.max_retries)} follows in ${seconds(num(o.retry_delay_ms))}` }]
    case 'permission_denied':
      return [{ kind: 'error', text: `${str(o.tool_name) || 'A tool'} was not permitted: ${str(o.message)}` }]
    case 'compact_boundary':
      return [{ kind: 'note', text: 'The conversation was compacted.' }]
    case 'status':
      return [{ kind: 'note', text: `Status: ${str(o.status) || 'unknown'}` }]
  }
  return undefined
}

function tokensOf(u: Obj): string {
  const i = num(u.input_tokens)
  const out = num(u.output_tokens)
  return i === undefined && out === undefined ? '' : `${i ?? '?'} tokens in, ${out ?? '?'} out`
}

function codex(o: Obj): Item[] | undefined {
  switch (o.type) {
    case 'thread.started':
      return [{ kind: 'start', text: `Session started${str(o.thread_id) ? `: ${str(o.thread_id)}` : ''}` }]
    case 'turn.started':
      return [{ kind: 'note', text: 'Turn started' }]
    case 'turn.completed':
      return [{ kind: 'end', ok: true, text: '', facts: facts(tokensOf(obj(o.usage))) }]
    case 'turn.failed':
      return [{ kind: 'end', ok: false, text: str(obj(o.error).message), facts: [] }]
    case 'error':
      if (typeof o.message !== 'string') return undefined
      return [{ kind: /reconnect|retry|429|limit/i.test(o.message) ? 'limit' : 'error', text: o.message }]
    case 'item.started':
    case 'item.updated':
    case 'item.completed':
      return codexItem(obj(o.item), o.type === 'item.completed')
  }
  return undefined
}

function codexItem(it: Obj, done: boolean): Item[] | undefined {
  const id = str(it.id)
  const failed = it.status === 'failed' || it.status === 'declined'
  const tool = (name: string, input: unknown, result: string, bad = failed): Item[] => [
    { kind: 'tool', id, name, summary: summaryOf(input), input: pretty(input), ...(done ? { result, failed: bad, done: true } : {}) },
  ]
  switch (it.type) {
    case 'agent_message':
      return [{ kind: 'text', role: 'assistant', text: str(it.text) }]
    case 'reasoning':
      return [{ kind: 'thinking', text: str(it.text) }]
    case 'command_execution': {
      const code = num(it.exit_code)
      return tool('Command', { command: it.command }, `${str(it.aggregated_output)}${code ? `\n(exit code ${code})` : ''}`, failed || (code !== undefined && code !== 0))
    }
    case 'file_change':
      return tool('File change', it.changes, str(it.status))
    case 'mcp_tool_call':
      return tool(`${str(it.server)}.${str(it.tool)}`, it.arguments ?? {}, it.error ? pretty(it.error) : textOf(obj(it.result).content ?? it.result))
    case 'web_search':
      return tool('Web search', { query: it.query }, '')
    case 'todo_list':
      return Array.isArray(it.items) ? [{ kind: 'note', text: it.items.map(x => `${obj(x).completed ? '☑' : '☐'} ${str(obj(x).text)}`).join('\n') }] : undefined
    case 'error':
      return [{ kind: 'error', text: str(it.message) }]
  }
  return undefined
}

function gemini(o: Obj): Item[] | undefined {
  switch (o.type) {
    case 'init':
      return [{ kind: 'start', text: `Session started${str(o.model) ? ` with ${str(o.model)}` : ''}` }]
    case 'message':
      if (typeof o.content !== 'string') return undefined
      return [{ kind: 'text', role: o.role === 'user' ? 'user' : 'assistant', text: o.content, ...(o.delta === true ? { delta: true } : {}) }]
    case 'tool_use':
      if (typeof o.tool_name !== 'string') return undefined
      return [{ kind: 'tool', id: str(o.tool_id), name: o.tool_name, summary: summaryOf(o.parameters), input: pretty(o.parameters) }]
    case 'tool_result':
      if (typeof o.tool_id !== 'string') return undefined
      return [{ kind: 'result-of', id: o.tool_id, text: textOf(o.output) || str(obj(o.error).message), failed: o.status === 'error' }]
    case 'error':
      if (typeof o.message !== 'string') return undefined
      return [{ kind: 'error', text: o.message }]
    case 'result': {
      if (typeof o.status !== 'string') return undefined
      const stats = obj(o.stats)
      return [{ kind: 'end', ok: o.status === 'success', text: str(obj(o.error).message), facts: facts(seconds(num(stats.duration_ms)), tokensOf(stats)) }]
    }
  }
  return undefined
}

function opencode(o: Obj): Item[] | undefined {
  const part = obj(o.part)
  switch (o.type) {
    case 'step_start':
      return [{ kind: 'note', text: 'Step started' }]
    case 'step_finish': {
      const t = obj(part.tokens)
      const c = num(part.cost)
      return [{ kind: 'note', text: ['Step finished', str(part.reason) && `(${str(part.reason)})`, num(t.input) !== undefined && `${String(t.input)} tokens in, ${String(t.output)} out`, c !== undefined && `$${c.toFixed(4)}`].filter(Boolean).join(' · ') }]
    }
    case 'text':
      if (typeof part.text !== 'string') return undefined
      return [{ kind: 'text', role: 'assistant', text: part.text }]
    case 'reasoning':
      return [{ kind: 'thinking', text: str(part.text) }]
    case 'tool_use': {
      const state = obj(part.state)
      if (typeof part.tool !== 'string') return undefined
      const done = state.status === 'completed' || state.status === 'error'
      return [{
        kind: 'tool', id: str(part.callID), name: part.tool, summary: str(state.title) || summaryOf(state.input), input: pretty(state.input),
        ...(done ? { result: textOf(state.output ?? state.error), failed: state.status === 'error', done: true } : {}),
      }]
    }
    case 'error': {
      const e = obj(o.error)
      const data = obj(e.data)
      const text = str(data.message) || str(e.name)
      if (!text) return undefined
      return [{ kind: data.statusCode === 429 ? 'limit' : 'error', text }]
    }
  }
  return undefined
}
