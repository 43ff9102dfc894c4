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
  credential: string
}

export const emptyWorkspace = (): WorkspaceForm => ({
  repository: '',
  ref: '',
  base: '',
  depth: 0,
  paths: [],
  credential: '',
})

export function workspaceForm(w: Workspace | null | undefined): WorkspaceForm {
  return {
    repository: String(w?.repository ?? ''),
    ref: String(w?.ref ?? ''),
    base: String(w?.base ?? ''),
    depth: Number(w?.depth ?? 0) || 0,
    paths: [...(Array.isArray(w?.paths) ? w.paths.map(String) : [])],
    credential: String(w?.credential ?? ''),
  }
}

/** Converts a form to a workspace of the API; null: none. */
export function workspaceBody(w: WorkspaceForm): Workspace | null {
  if (!w.repository.trim()) return null
  const paths = w.paths.map(p => p.trim()).filter(Boolean)
  return {
    repository: w.repository.trim(),
    ...(w.ref.trim() && { ref: w.ref.trim() }),
    ...(w.base.trim() && { base: w.base.trim() }),
    ...(w.depth > 0 && { depth: w.depth }),
    ...(paths.length > 0 && { paths }),
    ...(w.credential.trim() && { credential: w.credential.trim() }),
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
