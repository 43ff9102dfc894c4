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
import { envBody, envForm, networkBody, type EnvRow } from './trigger'

export type Agent = Schemas['AgentView']
export type AgentBody = Schemas['AgentUpdate']

export interface AgentForm {
  name: string
  role: string
  goals: string
  enabled: boolean
  backend: string
  account: string
  model: string
  fallback: Choice[]
  permission: string
  args: string[]
  working_dir: string
  workspace: WorkspaceForm
  trust_repository: boolean
  sandbox: string
  network: { allow: string[] }
  paths: string[]
  timeout_seconds: number
  silence_timeout_seconds: number
  ceiling_usd: number
  limits: LimitsForm
  env: EnvRow[]
}

export function emptyAgent(): AgentForm {
  return {
    name: '',
    role: '',
    goals: '',
    enabled: true,
    backend: '',
    account: '',
    model: '',
    fallback: [],
    permission: 'edit',
    args: [],
    working_dir: '',
    workspace: emptyWorkspace(),
    trust_repository: false,
    sandbox: '',
    network: { allow: [] },
    paths: [],
    timeout_seconds: 3600,
    silence_timeout_seconds: 0,
    ceiling_usd: 0,
    limits: emptyLimits(),
    env: [],
  }
}

const text = (v: unknown): string => (typeof v === 'string' ? v : v === undefined || v === null ? '' : String(v))
const texts = (v: unknown): string[] => (Array.isArray(v) ? v.map(text) : [])
const number = (v: unknown, other: number): number => (typeof v === 'number' ? v : other)

/** Converts an agent of the API, or a file that describes one, to a form. */
export function agentForm(a: AgentBody | Agent): AgentForm {
  const f = emptyAgent()
  return {
    name: text(a.name),
    role: text(a.role),
    goals: text(a.goals),
    enabled: a.enabled !== false,
    backend: text(a.backend) || f.backend,
    account: text(a.account),
    model: text(a.model),
    fallback: choicesForm(a.fallback),
    permission: text(a.permission) || f.permission,
    args: texts(a.args),
    working_dir: text(a.working_dir),
    workspace: workspaceForm(a.workspace),
    trust_repository: a.trust_repository === true,
    sandbox: text(a.sandbox),
    network: { allow: texts(a.network?.allow) },
    paths: texts(a.paths),
    timeout_seconds: number(a.timeout_seconds, f.timeout_seconds),
    silence_timeout_seconds: number(a.silence_timeout_seconds, 0),
    ceiling_usd: number(a.ceiling_usd, 0),
    limits: limitsForm(a.limits),
    env: envForm(a.env),
  }
}

export function agentBody(f: AgentForm): AgentBody {
  return {
    name: f.name.trim(),
    role: f.role.trim(),
    goals: f.goals,
    enabled: f.enabled,
    backend: f.backend,
    account: f.account.trim(),
    model: f.model.trim(),
    fallback: choicesBody(f.fallback),
    permission: f.permission,
    args: f.args,
    working_dir: f.working_dir.trim(),
    workspace: workspaceBody(f.workspace),
    trust_repository: workspaceBody(f.workspace) ? f.trust_repository : null,
    paths: f.paths.filter(Boolean),
    timeout_seconds: f.timeout_seconds,
    silence_timeout_seconds: f.silence_timeout_seconds,
    ceiling_usd: f.ceiling_usd,
    limits: limitsBody(f.limits),
    sandbox: f.sandbox || null,
    network: networkBody(f.network),
    env: envBody(f.env),
  }
}

/** Converts a form to a file, without default values. */
export function agentFile(f: AgentForm): Record<string, unknown> {
  const body = agentBody(f) as Record<string, unknown>
  const plain = agentBody(emptyAgent()) as Record<string, unknown>
  return Object.fromEntries(
    Object.entries(body).filter(
      ([k, v]) => k === 'name' || k === 'backend' || JSON.stringify(v) !== JSON.stringify(plain[k]),
    ),
  )
}

const lists = ['args', 'paths', 'fallback']
const numbers = ['timeout_seconds', 'silence_timeout_seconds', 'ceiling_usd']

/** Lists the reasons why the form cannot hold a file. */
export function wrongInAgent(doc: unknown): string[] {
  const object = (v: unknown): v is Record<string, unknown> => typeof v === 'object' && v !== null && !Array.isArray(v)
  if (!object(doc)) return ['This is not an agent: write fields such as name: and backend:.']
  const bad: string[] = []
  const known = Object.keys(emptyAgent())
  for (const [k, v] of Object.entries(doc)) {
    if (!known.includes(k)) bad.push(`${k} is not a known field.`)
    else if (v === null || v === undefined) continue
    else if (lists.includes(k) && !Array.isArray(v)) bad.push(`${k} must be a list.`)
    else if (numbers.includes(k) && typeof v !== 'number') bad.push(`${k} must be a number.`)
    else if ((k === 'env' || k === 'workspace') && !object(v)) bad.push(`${k} must be a map of names to values.`)
    else if (k === 'fallback')
      (v as unknown[]).forEach((c, i) => !object(c) && bad.push(`fallback.${i} must be a map of fields to values.`))
  }
  return bad
}
