import createClient, { type Middleware } from 'openapi-fetch'
import type { components, paths } from './schema'

export type Schemas = components['schemas']
export type Execution = Schemas['ExecutionView']
export type Attempt = Schemas['AttemptView']
export type Status = Execution['status']
export type Overview = Schemas['Overview']
export type LastLine = Schemas['LastLine']
export type Usage = NonNullable<Execution['usage']>
export type LogHit = Schemas['LogHit']

/** What the API answered instead of what was asked for; its message is for people. */
export class ApiError extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly fields: { location: string; message: string }[] = [],
  ) {
    super(message)
  }
}

/** Leaves for the login page, and comes back here afterwards. */
export function toLogin(): void {
  const here = location.pathname + location.search + location.hash
  location.assign(`/login?next=${encodeURIComponent(here)}`)
}

const problems: Middleware = {
  async onResponse({ response }) {
    if (response.ok) return
    if (response.status === 401) toLogin()
    let detail = ''
    let fields: { location: string; message: string }[] = []
    try {
      const p = (await response.clone().json()) as { detail?: string; errors?: { location: string; message: string }[] }
      detail = p.detail ?? ''
      fields = p.errors ?? []
    } catch {
      // Not one of the server's own answers: a proxy, say.
    }
    throw new ApiError(detail || `The server answered ${response.status}.`, response.status, fields)
  },
}

/** The API with its types. A call throws an ApiError, or a TypeError without a connection. */
export const api = createClient<paths>({ baseUrl: location.origin, fetch: request => fetch(request) })
api.use(problems)

/** What a person can be told about something that was caught. */
export function messageOf(err: unknown): string {
  if (err instanceof ApiError) return err.message
  if (err instanceof TypeError) return 'The server cannot be reached.'
  return err instanceof Error ? err.message : String(err)
}
