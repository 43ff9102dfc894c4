import { at } from '@/lib/base'
import { reactive } from 'vue'
import { api, type Schemas } from '@/api/client'

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

export async function logout(): Promise<void> {
  await api.POST('/api/v1/auth/logout')
  location.assign(at('/login?out=1'))
}
