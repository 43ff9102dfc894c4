import { at } from '@/lib/base'
import { reactive } from 'vue'
import { api, type Schemas } from '@/api/client'
import { followTabs, loginEnded, tellTabs } from '@/api/login'

export type Role = 'viewer' | 'operator' | 'admin'
const rank: Record<string, number> = { viewer: 1, operator: 2, admin: 3 }

/** The current user. Set before the first page is shown. */
export const session = reactive<{ me: Schemas['Me'] | undefined }>({ me: undefined })

/** Reports whether the current user has a role. Controls that need a higher one are hidden. */
export function may(role: Role): boolean {
  return (rank[session.me?.role ?? ''] ?? 0) >= (rank[role] ?? 9)
}

export async function loadSession(): Promise<void> {
  const { data } = await api.GET('/api/v1/auth/me')
  session.me = data
}

/** Continues after a login in the dialog of this tab or of another one. */
export async function loggedIn(inAnotherTab = false): Promise<void> {
  const before = session.me
  const r = await fetch(at('/api/v1/auth/me'))
  if (!r.ok) return
  const me = (await r.json()) as Schemas['Me']
  // The page shows what another user loaded, and waits to repeat that user's request.
  if (before && before.name !== me.name) return location.reload()
  session.me = me
  loginEnded(true)
  dispatchEvent(new Event('agented:login'))
  if (!inAnotherTab) tellTabs('in')
}
followTabs(() => void loggedIn(true).catch(() => {}))

/** Set from a logout on: nothing is stored for the user any more. */
export const ending = { now: false }

export async function logout(): Promise<void> {
  await api.POST('/api/v1/auth/logout')
  tellTabs('out')
  ending.now = true
  // Nothing of a form stays behind for the next user of the browser.
  for (const key of Object.keys(sessionStorage)) if (key.startsWith('agented.draft.')) sessionStorage.removeItem(key)
  location.assign(at('/login?out=1'))
}
