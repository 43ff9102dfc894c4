import type { Schemas } from '@/api/client'
import { choicesBody, choicesForm, emptyWorkspace, workspaceBody, workspaceForm, type Choice, type WorkspaceForm } from './spec'

export type Trigger = Schemas['TriggerView']
export type Body = Schemas['TriggerUpdate']
export type Match = Schemas['Match']
export type Condition = Schemas['Condition']

/** Stands for a value that is kept and never shown. */
export const kept = '***'

export interface EnvRow {
  name: string
  /** keep: the value that is stored; pass: the server's variable of that name. */
  mode: 'value' | 'pass' | 'keep'
  value: string
}

export interface ScheduleForm {
  id: string
  kind: 'cron' | 'every' | 'at'
  cron: string
  every: string
  at: string
  anchor: string
  zone: string
  missed: 'latest' | 'all' | 'skip'
  missed_limit: number
  window_seconds: number
  jitter_seconds: number
  start_at: string
  end_at: string
  /** '': as the rule for missed runs has it. */
  overlap: '' | 'skip' | 'queue' | 'replace'
  message: string
  enabled: boolean
}

export interface WebhookForm {
  id: string
  source: 'github' | 'webhook'
  enabled: boolean
  kind: string
  header: string
  prefix: string
  encoding: string
  allow: string[]
  unsigned: boolean
  match: Match
  supersede: boolean
  secret: string
}

export interface MessageForm {
  to: string
  types: string[]
  enabled: boolean
}

export type Retry = Required<Schemas['RetryPolicy']>

export interface TriggerForm {
  name: string
  enabled: boolean
  /** Name of the agent that gives prompt and backend settings; empty: none. */
  agent: string
  backend: string
  command: string[]
  tty: boolean
  prompt: string
  model: string
  permission: string
  args: string[]
  working_dir: string
  paths: string[]
  timeout_seconds: number
  silence_timeout_seconds: number
  env: EnvRow[]
  max_concurrent: number
  overlap: string
  schedules: ScheduleForm[]
  webhooks: WebhookForm[]
  messages: MessageForm[]
  account: string
  fallback: Choice[]
  retry: Retry
  workspace: WorkspaceForm
  ceiling_usd: number
}

export const emptyRetry = (): Retry => ({ max_attempts: 0, base_seconds: 0, cap_seconds: 0, give_up_after_seconds: 0, on_failure: false, on_interrupted: false })

function retryForm(v: Schemas['RetryPolicy'] | null | undefined): Retry {
  const n = (x: unknown) => (typeof x === 'number' ? x : 0)
  return {
    max_attempts: n(v?.max_attempts), base_seconds: n(v?.base_seconds), cap_seconds: n(v?.cap_seconds), give_up_after_seconds: n(v?.give_up_after_seconds),
    on_failure: v?.on_failure === true, on_interrupted: v?.on_interrupted === true,
  }
}

/** A retry policy without what is at its default. */
export function retryBody(r: Retry): Schemas['RetryPolicy'] {
  return Object.fromEntries(Object.entries(r).filter(([, v]) => Boolean(v)))
}

export function emptyTrigger(): TriggerForm {
  return {
    name: '', enabled: true, agent: '', backend: 'claude', command: ['sh', '-c', 'echo hello'], tty: false, prompt: '', model: '', permission: 'edit', args: [],
    working_dir: '', paths: [], timeout_seconds: 3600, silence_timeout_seconds: 0, env: [], max_concurrent: 1, overlap: 'queue', schedules: [], webhooks: [],
    messages: [], account: '', fallback: [], retry: emptyRetry(), workspace: emptyWorkspace(), ceiling_usd: 0,
  }
}

export function emptySchedule(): ScheduleForm {
  return {
    id: '', kind: 'cron', cron: '', every: '', at: '', anchor: '', zone: '', missed: 'latest', missed_limit: 10, window_seconds: 86400, jitter_seconds: 0,
    start_at: '', end_at: '', overlap: '', message: '', enabled: true,
  }
}

export function emptyWebhook(source: WebhookForm['source']): WebhookForm {
  return {
    id: '', source, enabled: true, kind: source === 'github' ? 'github' : 'hmac', header: '', prefix: '', encoding: '', allow: [], unsigned: false, match: {},
    supersede: false, secret: '',
  }
}

const text = (v: unknown): string => (typeof v === 'string' ? v : v === undefined || v === null ? '' : String(v))
const texts = (v: unknown): string[] => (Array.isArray(v) ? v.map(text) : [])
const number = (v: unknown, other: number): number => (typeof v === 'number' ? v : other)

function scheduleForm(s: Schemas['ScheduleFields']): ScheduleForm {
  const f = emptySchedule()
  return {
    ...f, id: text(s.id), kind: s.at ? 'at' : s.every ? 'every' : 'cron', cron: text(s.cron), every: text(s.every), at: text(s.at), anchor: text(s.anchor), zone: text(s.zone),
    missed: (text(s.missed) || f.missed) as ScheduleForm['missed'], missed_limit: number(s.missed_limit, f.missed_limit), window_seconds: number(s.window_seconds, f.window_seconds),
    jitter_seconds: number(s.jitter_seconds, 0), start_at: text(s.start_at), end_at: text(s.end_at), overlap: (s.overlap === (s.missed === 'all' ? 'queue' : 'skip') ? '' : text(s.overlap)) as ScheduleForm['overlap'],
    message: text(s.message), enabled: s.enabled !== false,
  }
}

function webhookForm(w: Schemas['WebhookFields']): WebhookForm {
  const f = emptyWebhook(w.source === 'github' ? 'github' : 'webhook')
  return {
    ...f, id: text(w.id), enabled: w.enabled !== false, kind: text(w.auth?.kind) || f.kind, header: text(w.auth?.header), prefix: text(w.auth?.prefix),
    encoding: text(w.auth?.encoding), allow: texts(w.auth?.allow), unsigned: w.auth?.unsigned === true, match: { ...w.match }, supersede: w.supersede === true, secret: text(w.secret),
  }
}

export function envForm(env: Record<string, string | null> | null | undefined): EnvRow[] {
  return Object.entries(env ?? {}).map(([name, v]) => (v === null ? { name, mode: 'pass', value: '' } : v === kept ? { name, mode: 'keep', value: '' } : { name, mode: 'value', value: text(v) }))
}

/** The form of a trigger as the API shows it, or of a file that describes one. */
export function formOf(t: Body | Trigger): TriggerForm {
  const f = emptyTrigger()
  const list = Array.isArray
  return {
    name: text(t.name), enabled: t.enabled !== false, agent: text(t.agent), backend: text(t.backend), command: texts(t.command), tty: t.tty === true, prompt: text(t.prompt), model: text(t.model),
    permission: text(t.permission) || f.permission, args: texts(t.args), working_dir: text(t.working_dir), paths: texts(t.paths),
    timeout_seconds: number(t.timeout_seconds, f.timeout_seconds), silence_timeout_seconds: number(t.silence_timeout_seconds, 0),
    env: envForm(t.env),
    max_concurrent: number(t.max_concurrent, f.max_concurrent), overlap: text(t.overlap) || f.overlap,
    schedules: list(t.schedules) ? t.schedules.map(s => scheduleForm(s ?? {})) : [],
    webhooks: list(t.webhooks) ? t.webhooks.map(w => webhookForm(w ?? { source: 'webhook' })) : [],
    messages: list(t.messages) ? t.messages.map(m => ({ to: text(m?.to), types: texts(m?.types), enabled: m?.enabled !== false })) : [],
    account: text(t.account), fallback: choicesForm(t.fallback), retry: retryForm(t.retry), workspace: workspaceForm(t.workspace), ceiling_usd: number(t.ceiling_usd, 0),
  }
}

/** A schedule as the API takes it; what is at its default is left out. */
export function scheduleBody(s: ScheduleForm): Schemas['ScheduleFields'] {
  return {
    ...(s.id && { id: s.id }),
    [s.kind]: s[s.kind].trim(),
    ...(s.kind === 'every' && s.anchor && { anchor: s.anchor }),
    ...(s.zone.trim() && { zone: s.zone.trim() }),
    ...(s.missed !== 'latest' && { missed: s.missed }),
    ...(s.missed === 'all' && s.missed_limit !== 10 && { missed_limit: s.missed_limit }),
    ...(s.window_seconds !== 86400 && { window_seconds: s.window_seconds }),
    ...(s.jitter_seconds !== 0 && { jitter_seconds: s.jitter_seconds }),
    ...(s.start_at && { start_at: s.start_at }),
    ...(s.end_at && { end_at: s.end_at }),
    ...(s.overlap && { overlap: s.overlap }),
    ...(s.message && { message: s.message }),
    ...(!s.enabled && { enabled: false }),
  }
}

/** Leaves out what asks for nothing. */
function filled(m: Match): Match {
  return Object.fromEntries(
    Object.entries(m).filter(([k, v]) => {
      if (k === 'conditions') return Boolean((v as Match['conditions'])?.all?.length || (v as Match['conditions'])?.any?.length)
      return Array.isArray(v) ? v.length > 0 : Boolean(v)
    }),
  )
}

export function webhookBody(w: WebhookForm): Schemas['WebhookFields'] {
  const signed = w.kind === 'hmac' || w.kind === 'bearer'
  const allow = w.allow.filter(Boolean)
  const auth: Schemas['Auth'] = {
    kind: w.kind,
    ...(signed && w.header.trim() && { header: w.header.trim() }),
    ...(signed && w.prefix && { prefix: w.prefix }),
    ...(w.kind === 'hmac' && w.encoding && { encoding: w.encoding }),
    ...(allow.length > 0 && { allow }),
    ...(w.kind === 'unsigned' && w.unsigned && { unsigned: true }),
  }
  const match = filled(w.match)
  return {
    ...(w.id && { id: w.id }),
    source: w.source,
    ...(!w.enabled && { enabled: false }),
    ...((w.source === 'webhook' || allow.length > 0) && { auth }),
    ...(Object.keys(match).length > 0 && { match }),
    ...(w.supersede && { supersede: true }),
    // A webhook that is stored loses its secret only when it is told so.
    ...((w.secret || w.id) && w.kind !== 'unsigned' && { secret: w.secret }),
  }
}

export function envBody(rows: EnvRow[]): Record<string, string | null> {
  return Object.fromEntries(rows.map(r => [r.name.trim(), r.mode === 'pass' ? null : r.mode === 'keep' ? kept : r.value]))
}

export function messageBody(m: MessageForm): Schemas['MessageRuleFields'] {
  return { to: m.to.trim(), ...(m.types.length > 0 && { types: m.types }), ...(!m.enabled && { enabled: false }) }
}

/** The whole trigger as a change: fields that do not apply to its backend are reset. */
export function bodyOf(f: TriggerForm, before?: Trigger): Body {
  const both = {
    name: f.name.trim(), enabled: f.enabled, timeout_seconds: f.timeout_seconds, silence_timeout_seconds: f.silence_timeout_seconds, max_concurrent: f.max_concurrent, overlap: f.overlap,
    schedules: f.schedules.map(scheduleBody), webhooks: f.webhooks.map(webhookBody), messages: f.messages.map(messageBody), retry: retryBody(f.retry),
  }
  if (f.agent) {
    return {
      ...both, agent: f.agent, prompt: f.prompt, ceiling_usd: f.ceiling_usd, backend: null, command: null, tty: null, model: null, permission: null, args: null, working_dir: null, paths: null,
      env: null, account: null, fallback: null, workspace: null,
    }
  }
  const command = f.backend === 'command'
  return {
    ...both, agent: null, backend: f.backend,
    command: command ? f.command : null,
    tty: command ? f.tty : null,
    // Nothing shows the prompt of a command here, so nothing changes it either.
    ...(command && before?.backend === 'command' ? {} : { prompt: command ? null : f.prompt }),
    model: command ? null : f.model.trim(), permission: command ? null : f.permission, args: command ? null : f.args,
    working_dir: f.working_dir.trim(), paths: f.paths.filter(Boolean), env: envBody(f.env), workspace: workspaceBody(f.workspace),
    account: command ? null : f.account.trim(), fallback: command ? null : choicesBody(f.fallback), ceiling_usd: command ? null : f.ceiling_usd,
  }
}

/** The trigger as a file would have it: without ids, and without what is at its default. */
export function fileOf(f: TriggerForm): Record<string, unknown> {
  const command = f.backend === 'command'
  const env = envBody(f.env)
  const workspace = workspaceBody(f.workspace)
  const retry = retryBody(f.retry)
  const own = !f.agent
  const bare = <T extends { id?: string | null }>(v: T): T => {
    const out = { ...v }
    delete out.id
    return out
  }
  return {
    name: f.name,
    ...(!f.enabled && { enabled: false }),
    ...(own ? { backend: f.backend, ...(command ? { command: f.command } : { prompt: f.prompt }) } : { agent: f.agent, ...(f.prompt && { prompt: f.prompt }) }),
    ...(own && command && f.tty && { tty: true }),
    ...(own && !command && f.model && { model: f.model }),
    ...(own && !command && f.permission !== 'edit' && { permission: f.permission }),
    ...(own && !command && f.args.length > 0 && { args: f.args }),
    ...(own && f.working_dir && { working_dir: f.working_dir }),
    ...(own && f.paths.length > 0 && { paths: f.paths }),
    ...(own && !command && f.account && { account: f.account }),
    ...(own && !command && f.fallback.length > 0 && { fallback: choicesBody(f.fallback) }),
    ...(own && workspace && { workspace }),
    ...((f.agent || !command) && f.ceiling_usd > 0 && { ceiling_usd: f.ceiling_usd }),
    ...(Object.keys(retry).length > 0 && { retry }),
    ...(f.timeout_seconds !== 3600 && { timeout_seconds: f.timeout_seconds }),
    ...(f.silence_timeout_seconds !== 0 && { silence_timeout_seconds: f.silence_timeout_seconds }),
    ...(own && f.env.length > 0 && { env }),
    ...(f.max_concurrent !== 1 && { max_concurrent: f.max_concurrent }),
    ...(f.overlap !== 'queue' && { overlap: f.overlap }),
    ...(f.schedules.length > 0 && { schedules: f.schedules.map(s => bare(scheduleBody(s))) }),
    ...(f.webhooks.length > 0 && { webhooks: f.webhooks.map(w => { const b = bare(webhookBody(w)); if (!b.secret) delete b.secret; return b }) }),
    ...(f.messages.length > 0 && { messages: f.messages.map(messageBody) }),
  }
}

const known = {
  trigger: ['name', 'enabled', 'backend', 'command', 'tty', 'prompt', 'model', 'permission', 'args', 'working_dir', 'paths', 'timeout_seconds', 'silence_timeout_seconds', 'env', 'max_concurrent', 'overlap', 'schedules', 'webhooks', 'messages', 'agent', 'account', 'fallback', 'retry', 'workspace', 'ceiling_usd'],
  schedules: ['id', 'cron', 'every', 'anchor', 'at', 'zone', 'missed', 'missed_limit', 'window_seconds', 'jitter_seconds', 'start_at', 'end_at', 'overlap', 'message', 'enabled'],
  webhooks: ['id', 'source', 'enabled', 'auth', 'match', 'supersede', 'secret'],
  messages: ['to', 'types', 'enabled'],
  fallback: ['backend', 'account', 'model'],
  retry: Object.keys(emptyRetry()),
  workspace: Object.keys(emptyWorkspace()),
}
const lists = ['command', 'args', 'paths', 'schedules', 'webhooks', 'messages', 'fallback']
const numbers = ['timeout_seconds', 'silence_timeout_seconds', 'max_concurrent', 'ceiling_usd']

/** What stands in a file that no form can hold, in sentences; then it is not taken over. */
export function wrongIn(doc: unknown): string[] {
  const object = (v: unknown): v is Record<string, unknown> => typeof v === 'object' && v !== null && !Array.isArray(v)
  if (!object(doc)) return ['This is not a trigger: write fields such as name: and backend:.']
  const bad: string[] = []
  const names = (v: Record<string, unknown>, list: string[], at: string) => {
    for (const k of Object.keys(v)) if (!list.includes(k)) bad.push(`${at}${k} is not a field.`)
  }
  names(doc, known.trigger, '')
  for (const k of lists) if (doc[k] !== undefined && doc[k] !== null && !Array.isArray(doc[k])) bad.push(`${k} must be a list.`)
  for (const k of numbers) if (doc[k] !== undefined && doc[k] !== null && typeof doc[k] !== 'number') bad.push(`${k} must be a number.`)
  if (doc.env !== undefined && doc.env !== null && !object(doc.env)) bad.push('env must be names with values.')
  for (const part of ['retry', 'workspace'] as const) {
    const v = doc[part]
    if (v === undefined || v === null) continue
    if (object(v)) names(v, known[part], `${part}.`)
    else bad.push(`${part} must be fields with values.`)
  }
  for (const part of ['schedules', 'webhooks', 'messages', 'fallback'] as const) {
    if (!Array.isArray(doc[part])) continue
    doc[part].forEach((v: unknown, i: number) => {
      if (object(v)) names(v, known[part], `${part}.${i}.`)
      else bad.push(`${part}.${i} must be fields with values.`)
    })
  }
  return bad
}

/** Gives what a file describes the ids of what is there, where both stand at the same place and are of one kind. */
export function withIds(f: TriggerForm, before: TriggerForm): TriggerForm {
  return {
    ...f,
    schedules: f.schedules.map((s, i) => (s.id || before.schedules[i]?.kind !== s.kind ? s : { ...s, id: before.schedules[i]!.id })),
    webhooks: f.webhooks.map((w, i) => {
      const old = before.webhooks[i]
      if (w.id || !old || old.source !== w.source || old.kind !== w.kind) return w
      return { ...w, id: old.id, secret: w.secret || old.secret }
    }),
  }
}

/** The fields of a refusal by their place in the body: "schedules.0.cron". */
export function errorsOf(fields: readonly { location: string; message: string }[]): Record<string, string> {
  const out: Record<string, string> = {}
  for (const f of fields) {
    const path = f.location.replace(/^body\.?/, '').replace(/\[(\d+)\]/g, '.$1')
    out[path] = out[path] ? `${out[path]}; ${f.message}` : f.message
  }
  return out
}
