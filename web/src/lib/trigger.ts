import { emptyExpect, expectBody, expectForm, type ExpectForm } from './expect'
import { notifyBody, notifyForm, type NotifyRow } from './notify'
import type { Schemas } from '@/api/client'
import { emptyLimits, limitsBody, limitsForm, type LimitsForm } from './limits'
import {
  choicesBody,
  choicesForm,
  emptyWorkspace,
  workspaceBody,
  workspaceForm,
  type Choice,
  type WorkspaceForm,
} from './spec'

export type Trigger = Schemas['TriggerView']
export type Body = Schemas['TriggerUpdate']
export type Match = Schemas['Match']
export type Condition = Schemas['Condition']

/** Stands for a stored value that is never shown. */
export const kept = '***'

export interface EnvRow {
  name: string
  /** keep: the stored value; pass: the server's variable of that name; named: the named secret in value. */
  mode: 'value' | 'pass' | 'keep' | 'named'
  value: string
  /** The value is masked in everything that executions print, and not shown again. */
  secret: boolean
}

export type EnvValue = string | null | { value: string; secret?: boolean } | { secret: string }

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
  /** '': the default for the rule for missed runs. */
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
  algorithm: string
  /** Template of the signed text. */
  signed: string
  timestamp: string
  tolerance_seconds: number
  delivery_id: string
  url: string
  allow: string[]
  unsigned: boolean
  match: Match
  supersede: boolean
  secret: string
  /** Second secret that is accepted while the sender switches to the new one. */
  previous_secret: string
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
  /** Name of the agent that provides the backend settings; empty: none. */
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
  trust_repository: boolean
  publish: Schemas['Publish'] | null // edited in the trigger file
  sandbox: string
  network: { allow: string[] }
  ceiling_usd: number
  limits: LimitsForm
  notify: NotifyRow[]
  expect: ExpectForm
  expect_every: string
}

export const emptyRetry = (): Retry => ({
  max_attempts: 0,
  base_seconds: 0,
  cap_seconds: 0,
  give_up_after_seconds: 0,
  on_failure: false,
  on_interrupted: false,
})

function retryForm(v: Schemas['RetryPolicy'] | null | undefined): Retry {
  const n = (x: unknown) => (typeof x === 'number' ? x : 0)
  return {
    max_attempts: n(v?.max_attempts),
    base_seconds: n(v?.base_seconds),
    cap_seconds: n(v?.cap_seconds),
    give_up_after_seconds: n(v?.give_up_after_seconds),
    on_failure: v?.on_failure === true,
    on_interrupted: v?.on_interrupted === true,
  }
}

/** A retry policy without default values. */
export function retryBody(r: Retry): Schemas['RetryPolicy'] {
  return Object.fromEntries(Object.entries(r).filter(([, v]) => Boolean(v)))
}

export function emptyTrigger(): TriggerForm {
  return {
    name: '',
    enabled: true,
    agent: '',
    backend: '',
    command: ['sh', '-c', 'echo hello'],
    tty: false,
    prompt: '',
    model: '',
    permission: 'edit',
    args: [],
    working_dir: '',
    paths: [],
    timeout_seconds: 3600,
    silence_timeout_seconds: 0,
    env: [],
    max_concurrent: 1,
    overlap: 'queue',
    schedules: [],
    webhooks: [],
    messages: [],
    account: '',
    fallback: [],
    retry: emptyRetry(),
    workspace: emptyWorkspace(),
    trust_repository: false,
    publish: null,
    sandbox: '',
    network: { allow: [] },
    ceiling_usd: 0,
    limits: emptyLimits(),
    notify: [],
    expect: emptyExpect(),
    expect_every: '',
  }
}

export function emptySchedule(): ScheduleForm {
  return {
    id: '',
    kind: 'cron',
    cron: '',
    every: '',
    at: '',
    anchor: '',
    zone: '',
    missed: 'latest',
    missed_limit: 10,
    window_seconds: 86400,
    jitter_seconds: 0,
    start_at: '',
    end_at: '',
    overlap: '',
    message: '',
    enabled: true,
  }
}

export function emptyWebhook(source: WebhookForm['source']): WebhookForm {
  return {
    id: '',
    source,
    enabled: true,
    kind: source === 'github' ? 'github' : 'hmac',
    header: '',
    prefix: '',
    encoding: '',
    algorithm: '',
    signed: '',
    timestamp: '',
    tolerance_seconds: 0,
    delivery_id: '',
    url: '',
    allow: [],
    unsigned: false,
    match: {},
    supersede: false,
    secret: '',
    previous_secret: '',
  }
}

const text = (v: unknown): string => (typeof v === 'string' ? v : v === undefined || v === null ? '' : String(v))
const texts = (v: unknown): string[] => (Array.isArray(v) ? v.map(text) : [])
const number = (v: unknown, other: number): number => (typeof v === 'number' ? v : other)

function scheduleForm(s: Schemas['ScheduleFields']): ScheduleForm {
  const f = emptySchedule()
  return {
    ...f,
    id: text(s.id),
    kind: s.at ? 'at' : s.every ? 'every' : 'cron',
    cron: text(s.cron),
    every: text(s.every),
    at: text(s.at),
    anchor: text(s.anchor),
    zone: text(s.zone),
    missed: (text(s.missed) || f.missed) as ScheduleForm['missed'],
    missed_limit: number(s.missed_limit, f.missed_limit),
    window_seconds: number(s.window_seconds, f.window_seconds),
    jitter_seconds: number(s.jitter_seconds, 0),
    start_at: text(s.start_at),
    end_at: text(s.end_at),
    overlap: (s.overlap === (s.missed === 'all' ? 'queue' : 'skip') ? '' : text(s.overlap)) as ScheduleForm['overlap'],
    message: text(s.message),
    enabled: s.enabled !== false,
  }
}

function webhookForm(w: Schemas['WebhookFields']): WebhookForm {
  const f = emptyWebhook(w.source === 'github' ? 'github' : 'webhook')
  return {
    ...f,
    id: text(w.id),
    enabled: w.enabled !== false,
    kind: text(w.auth?.kind) || f.kind,
    header: text(w.auth?.header),
    prefix: text(w.auth?.prefix),
    encoding: text(w.auth?.encoding),
    algorithm: text(w.auth?.algorithm),
    signed: text(w.auth?.signed),
    timestamp: text(w.auth?.timestamp),
    tolerance_seconds: number(w.auth?.tolerance_seconds, 0),
    delivery_id: text(w.auth?.delivery_id),
    url: text(w.auth?.url),
    allow: texts(w.auth?.allow),
    unsigned: w.auth?.unsigned === true,
    match: { ...w.match },
    supersede: w.supersede === true,
    secret: text(w.secret),
    previous_secret: text(w.previous_secret),
  }
}

export function envForm(env: Record<string, EnvValue> | null | undefined): EnvRow[] {
  return Object.entries(env ?? {}).map(([name, v]) => {
    if (v && typeof v === 'object' && typeof v.secret === 'string')
      return { name, mode: 'named', value: v.secret, secret: true }
    const long = v && typeof v === 'object' && 'value' in v ? v : null
    const secret = long?.secret !== false
    const value = long ? long.value : (v as string | null)
    if (value === null) return { name, mode: 'pass', value: '', secret }
    return value === kept && secret
      ? { name, mode: 'keep', value: '', secret }
      : { name, mode: 'value', value: text(value), secret }
  })
}

/** Converts a trigger of the API, or a file that describes one, to a form. */
export function formOf(t: Body | Trigger): TriggerForm {
  const f = emptyTrigger()
  const list = Array.isArray
  return {
    name: text(t.name),
    enabled: t.enabled !== false,
    agent: text(t.agent),
    backend: text(t.backend),
    command: texts(t.command),
    tty: t.tty === true,
    prompt: text(t.prompt),
    model: text(t.model),
    permission: text(t.permission) || f.permission,
    args: texts(t.args),
    working_dir: text(t.working_dir),
    paths: texts(t.paths),
    timeout_seconds: number(t.timeout_seconds, f.timeout_seconds),
    silence_timeout_seconds: number(t.silence_timeout_seconds, 0),
    env: envForm(t.env),
    max_concurrent: number(t.max_concurrent, f.max_concurrent),
    overlap: text(t.overlap) || f.overlap,
    schedules: list(t.schedules) ? t.schedules.map(s => scheduleForm(s ?? {})) : [],
    webhooks: list(t.webhooks) ? t.webhooks.map(w => webhookForm(w ?? { source: 'webhook' })) : [],
    messages: list(t.messages)
      ? t.messages.map(m => ({ to: text(m?.to), types: texts(m?.types), enabled: m?.enabled !== false }))
      : [],
    account: text(t.account),
    fallback: choicesForm(t.fallback),
    retry: retryForm(t.retry),
    workspace: workspaceForm(t.workspace),
    trust_repository: t.trust_repository === true,
    publish: t.publish ?? null,
    sandbox: text(t.sandbox),
    network: { allow: texts(t.network?.allow) },
    ceiling_usd: number(t.ceiling_usd, 0),
    limits: limitsForm(t.limits),
    notify: notifyForm(t.notify),
    expect: expectForm(t.expect),
    expect_every: text(t.expect_every),
  }
}

/** Converts a form to a schedule of the API, without default values. */
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

/** Removes empty rules. */
function filled(m: Match): Match {
  return Object.fromEntries(
    Object.entries(m).filter(([k, v]) => {
      if (k === 'conditions')
        return Boolean((v as Match['conditions'])?.all?.length || (v as Match['conditions'])?.any?.length)
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
    ...(w.kind === 'hmac' && w.algorithm && { algorithm: w.algorithm }),
    ...(w.kind === 'hmac' && w.signed && { signed: w.signed }),
    ...(w.kind === 'hmac' && w.timestamp.trim() && { timestamp: w.timestamp.trim() }),
    ...(w.tolerance_seconds > 0 && { tolerance_seconds: w.tolerance_seconds }),
    ...(w.delivery_id.trim() && { delivery_id: w.delivery_id.trim() }),
    ...(w.url.trim() && { url: w.url.trim() }),
    ...(allow.length > 0 && { allow }),
    ...(w.kind === 'unsigned' && w.unsigned && { unsigned: true }),
  }
  const match = filled(w.match)
  return {
    ...(w.id && { id: w.id }),
    source: w.source,
    ...(!w.enabled && { enabled: false }),
    ...((w.source === 'webhook' || allow.length > 0 || w.delivery_id.trim()) && { auth }),
    ...(Object.keys(match).length > 0 && { match }),
    ...(w.supersede && { supersede: true }),
    // A stored webhook loses its secret only if an empty one is sent.
    ...((w.secret || w.id) && w.kind !== 'unsigned' && { secret: w.secret }),
    ...((w.previous_secret || w.id) && w.kind !== 'unsigned' && w.secret && { previous_secret: w.previous_secret }),
  }
}

export function envBody(rows: EnvRow[]): Record<string, EnvValue> {
  return Object.fromEntries(rows.map(r => [r.name.trim(), envValue(r)]))
}

/** The credentials of an account, all of which are secret. */
export function credentialsBody(rows: EnvRow[]): Record<string, string | { secret: string }> {
  return Object.fromEntries(
    rows.map(r => [r.name.trim(), r.mode === 'named' ? { secret: r.value } : r.mode === 'keep' ? kept : r.value]),
  )
}

function envValue(r: EnvRow): EnvValue {
  if (r.mode === 'pass') return null
  if (r.mode === 'keep') return kept
  if (r.mode === 'named') return { secret: r.value.trim() }
  return r.secret ? r.value : { value: r.value, secret: false }
}

export function messageBody(m: MessageForm): Schemas['MessageRuleFields'] {
  return { to: m.to.trim(), ...(m.types.length > 0 && { types: m.types }), ...(!m.enabled && { enabled: false }) }
}

/** Returns the hosts that processes may reach at sandbox level strict, or null for none. */
export function networkBody(n: { allow: string[] }) {
  const allow = n.allow.map(h => h.trim()).filter(Boolean)
  return allow.length > 0 ? { allow } : null
}

/** Converts a form to a change of the trigger. Fields that do not apply to the backend are reset. */
export function bodyOf(f: TriggerForm, before?: Trigger): Body {
  const both = {
    name: f.name.trim(),
    enabled: f.enabled,
    timeout_seconds: f.timeout_seconds,
    silence_timeout_seconds: f.silence_timeout_seconds,
    max_concurrent: f.max_concurrent,
    overlap: f.overlap,
    sandbox: f.sandbox || null,
    limits: limitsBody(f.limits),
    publish: f.publish,
    schedules: f.schedules.map(scheduleBody),
    webhooks: f.webhooks.map(webhookBody),
    messages: f.messages.map(messageBody),
    retry: retryBody(f.retry),
    notify: notifyBody(f.notify),
    expect: expectBody(f.expect),
    expect_every: f.expect_every.trim(),
  }
  if (f.agent) {
    return {
      ...both,
      agent: f.agent,
      prompt: f.prompt,
      ceiling_usd: f.ceiling_usd,
      backend: null,
      command: null,
      tty: null,
      model: null,
      permission: null,
      args: null,
      working_dir: null,
      paths: null,
      env: null,
      account: null,
      fallback: null,
      workspace: null,
      trust_repository: null,
      network: null,
    }
  }
  const command = f.backend === 'command'
  return {
    ...both,
    agent: null,
    backend: f.backend,
    command: command ? f.command : null,
    tty: command ? f.tty : null,
    // The form does not show the prompt of a command and must not change it.
    ...(command && before?.backend === 'command' ? {} : { prompt: command ? null : f.prompt }),
    model: command ? null : f.model.trim(),
    permission: command ? null : f.permission,
    args: command ? null : f.args,
    working_dir: f.working_dir.trim(),
    paths: f.paths.filter(Boolean),
    env: envBody(f.env),
    workspace: workspaceBody(f.workspace),
    trust_repository: workspaceBody(f.workspace) ? f.trust_repository : null,
    network: networkBody(f.network),
    account: command ? null : f.account.trim(),
    fallback: command ? null : choicesBody(f.fallback),
    ceiling_usd: command ? null : f.ceiling_usd,
  }
}

/** Keeps the ids of schedules and webhooks that have the same position and kind as before. */
export function withIds(f: TriggerForm, before: TriggerForm): TriggerForm {
  return {
    ...f,
    schedules: f.schedules.map((s, i) =>
      s.id || before.schedules[i]?.kind !== s.kind ? s : { ...s, id: before.schedules[i]!.id },
    ),
    webhooks: f.webhooks.map((w, i) => {
      const old = before.webhooks[i]
      if (w.id || !old || old.source !== w.source || old.kind !== w.kind) return w
      return { ...w, id: old.id, secret: w.secret || old.secret }
    }),
  }
}
