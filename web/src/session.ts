import { reactive } from 'vue'
import { api, type Schemas } from '@/api/client'

export type Role = 'viewer' | 'operator' | 'admin'
const rank: Record<string, number> = { viewer: 1, operator: 2, admin: 3 }

/** Who uses this page. Filled before the first page is shown. */
export const session = reactive<{ me: Schemas['Me'] | undefined }>({ me: undefined })

/** Whether the API lets this person do what needs a role. Buttons for the rest are not shown. */
export function may(role: Role): boolean {
  return (rank[session.me?.role ?? ''] ?? 0) >= (rank[role] ?? 9)
}

export async function loadSession(): Promise<void> {
  const { data } = await api.GET('/api/v1/auth/me')
  session.me = data
}

export async function logout(): Promise<void> {
  await api.POST('/api/v1/auth/logout')
  location.assign('/login?out=1')
}
