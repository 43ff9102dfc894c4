import { expectBody, wrongInExpect } from './expect'
import { notifyBody } from './notify'
import { emptyLimits, limitsBody } from './limits'
import { choicesBody, emptyWorkspace, workspaceBody } from './spec'
import {
  emptyRetry,
  envBody,
  messageBody,
  networkBody,
  retryBody,
  scheduleBody,
  webhookBody,
  type TriggerForm,
} from './trigger'

/** Converts a form to a file, without ids and default values. */
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
    ...(own
      ? { backend: f.backend, ...(command ? { command: f.command } : { prompt: f.prompt }) }
      : { agent: f.agent, ...(f.prompt && { prompt: f.prompt }) }),
    ...(own && command && f.tty && { tty: true }),
    ...(own && !command && f.model && { model: f.model }),
    ...(own && !command && f.permission !== 'edit' && { permission: f.permission }),
    ...(own && !command && f.args.length > 0 && { args: f.args }),
    ...(own && f.working_dir && { working_dir: f.working_dir }),
    ...(own && f.paths.length > 0 && { paths: f.paths }),
    ...(own && !command && f.account && { account: f.account }),
    ...(own && !command && f.fallback.length > 0 && { fallback: choicesBody(f.fallback) }),
    ...(own && workspace && { workspace }),
    ...(own && workspace && f.trust_repository && { trust_repository: true }),
    ...(f.publish && { publish: f.publish }),
    ...((f.agent || !command) && f.ceiling_usd > 0 && { ceiling_usd: f.ceiling_usd }),
    ...(Object.keys(retry).length > 0 && { retry }),
    ...(f.timeout_seconds !== 3600 && { timeout_seconds: f.timeout_seconds }),
    ...(f.silence_timeout_seconds !== 0 && { silence_timeout_seconds: f.silence_timeout_seconds }),
    ...(own && f.env.length > 0 && { env }),
    ...(f.max_concurrent !== 1 && { max_concurrent: f.max_concurrent }),
    ...(f.overlap !== 'queue' && { overlap: f.overlap }),
    ...(f.sandbox && { sandbox: f.sandbox }),
    ...(own && networkBody(f.network) && { network: networkBody(f.network) }),
    ...(limitsBody(f.limits) && { limits: limitsBody(f.limits) }),
    ...(f.notify.length > 0 && { notify: notifyBody(f.notify) }),
    ...(expectBody(f.expect) && { expect: expectBody(f.expect) }),
    ...(f.expect_every.trim() && { expect_every: f.expect_every.trim() }),
    ...(f.schedules.length > 0 && { schedules: f.schedules.map(s => bare(scheduleBody(s))) }),
    ...(f.webhooks.length > 0 && {
      webhooks: f.webhooks.map(w => {
        const b = bare(webhookBody(w))
        if (!b.secret) delete b.secret
        return b
      }),
    }),
    ...(f.messages.length > 0 && { messages: f.messages.map(messageBody) }),
  }
}

const known = {
  trigger: [
    'name',
    'enabled',
    'backend',
    'command',
    'tty',
    'prompt',
    'model',
    'permission',
    'args',
    'working_dir',
    'paths',
    'timeout_seconds',
    'silence_timeout_seconds',
    'env',
    'max_concurrent',
    'overlap',
    'schedules',
    'webhooks',
    'messages',
    'agent',
    'account',
    'fallback',
    'retry',
    'workspace',
    'trust_repository',
    'publish',
    'sandbox',
    'network',
    'ceiling_usd',
    'limits',
    'notify',
    'expect',
    'expect_every',
  ],
  schedules: [
    'id',
    'cron',
    'every',
    'anchor',
    'at',
    'zone',
    'missed',
    'missed_limit',
    'window_seconds',
    'jitter_seconds',
    'start_at',
    'end_at',
    'overlap',
    'message',
    'enabled',
  ],
  webhooks: ['id', 'source', 'enabled', 'auth', 'match', 'supersede', 'secret', 'previous_secret'],
  messages: ['to', 'types', 'enabled'],
  fallback: ['backend', 'account', 'model'],
  retry: Object.keys(emptyRetry()),
  limits: Object.keys(emptyLimits()),
  workspace: Object.keys(emptyWorkspace()),
  network: ['allow'],
}
const lists = ['command', 'args', 'paths', 'schedules', 'webhooks', 'messages', 'fallback']
const numbers = ['timeout_seconds', 'silence_timeout_seconds', 'max_concurrent', 'ceiling_usd']

/** Lists the reasons why the form cannot hold a file. */
export function wrongIn(doc: unknown): string[] {
  const object = (v: unknown): v is Record<string, unknown> => typeof v === 'object' && v !== null && !Array.isArray(v)
  if (!object(doc)) return ['This is not a trigger: write fields such as name: and backend:.']
  const bad: string[] = []
  const names = (v: Record<string, unknown>, list: string[], at: string) => {
    for (const k of Object.keys(v)) if (!list.includes(k)) bad.push(`${at}${k} is not a known field.`)
  }
  names(doc, known.trigger, '')
  for (const k of lists)
    if (doc[k] !== undefined && doc[k] !== null && !Array.isArray(doc[k])) bad.push(`${k} must be a list.`)
  for (const k of numbers)
    if (doc[k] !== undefined && doc[k] !== null && typeof doc[k] !== 'number') bad.push(`${k} must be a number.`)
  if (doc.notify !== undefined && doc.notify !== null) {
    if (!object(doc.notify)) bad.push('notify must be a map of kinds to lists of channels.')
    else
      for (const [k, v] of Object.entries(doc.notify))
        if (!Array.isArray(v)) bad.push(`notify.${k} must be a list of channels.`)
  }
  bad.push(...wrongInExpect(doc.expect))
  if (doc.env !== undefined && doc.env !== null && !object(doc.env)) bad.push('env must be a map of names to values.')
  for (const part of ['retry', 'workspace', 'limits', 'network'] as const) {
    const v = doc[part]
    if (v === undefined || v === null) continue
    if (object(v)) names(v, known[part], `${part}.`)
    else bad.push(`${part} must be a map of fields to values.`)
  }
  for (const part of ['schedules', 'webhooks', 'messages', 'fallback'] as const) {
    if (!Array.isArray(doc[part])) continue
    doc[part].forEach((v: unknown, i: number) => {
      if (object(v)) names(v, known[part], `${part}.${i}.`)
      else bad.push(`${part}.${i} must be a map of fields to values.`)
    })
  }
  return bad
}
