// Parts of the forms of triggers and agents.
import type { Schemas } from '@/api/client'

export type Choice = Schemas['Choice']
export type Workspace = Schemas['Workspace']

export interface WorkspaceForm {
  repository: string
  ref: string
  base: string
  depth: number
  paths: string[]
  /** Name of a variable, or of a named secret. */
  credential: string | { secret: string }
  /** What the agent's git may do with a named secret: '', fetch or push. */
  access: string
}

export const emptyWorkspace = (): WorkspaceForm => ({
  repository: '',
  ref: '',
  base: '',
  depth: 0,
  paths: [],
  credential: '',
  access: '',
})

function credentialForm(c: unknown): WorkspaceForm['credential'] {
  if (typeof c === 'object' && c !== null && 'secret' in c) return { secret: String(c.secret) }
  return String(c ?? '')
}

export function workspaceForm(w: Workspace | null | undefined): WorkspaceForm {
  return {
    repository: String(w?.repository ?? ''),
    ref: String(w?.ref ?? ''),
    base: String(w?.base ?? ''),
    depth: Number(w?.depth ?? 0) || 0,
    paths: [...(Array.isArray(w?.paths) ? w.paths.map(String) : [])],
    credential: credentialForm(w?.credential),
    access: String(w?.access ?? ''),
  }
}

/** Converts a form to a workspace of the API; null: none. */
export function workspaceBody(w: WorkspaceForm): Workspace | null {
  if (!w.repository.trim()) return null
  const paths = w.paths.map(p => p.trim()).filter(Boolean)
  const credential = typeof w.credential === 'string' ? w.credential.trim() : w.credential.secret && w.credential
  return {
    repository: w.repository.trim(),
    ...(w.ref.trim() && { ref: w.ref.trim() }),
    ...(w.base.trim() && { base: w.base.trim() }),
    ...(w.depth > 0 && { depth: w.depth }),
    ...(paths.length > 0 && { paths }),
    ...(credential && { credential }),
    ...(typeof credential === 'object' && w.access && { access: w.access as Workspace['access'] }),
  }
}

export function choicesForm(list: readonly Choice[] | null | undefined): Choice[] {
  return (Array.isArray(list) ? list : []).map(c => ({
    backend: String(c?.backend ?? ''),
    account: String(c?.account ?? ''),
    model: String(c?.model ?? ''),
  }))
}

/** Choices without empty fields. */
export function choicesBody(list: readonly Choice[]): Choice[] {
  return list.map(c => ({
    backend: c.backend,
    ...(c.account?.trim() && { account: c.account.trim() }),
    ...(c.model?.trim() && { model: c.model.trim() }),
  }))
}
