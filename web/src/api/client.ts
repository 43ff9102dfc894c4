import createClient, { type Middleware } from 'openapi-fetch'
import { at, base } from '@/lib/base'
import { askLogin } from './login'
import type { components, paths } from './schema'

export type Schemas = components['schemas']
export type Execution = Schemas['ExecutionView']
export type Attempt = Schemas['AttemptView']
export type Status = Execution['status']
export type Overview = Schemas['Overview']
export type LastLine = Schemas['LastLine']
export type Usage = NonNullable<Execution['usage']>
export type LogHit = Schemas['LogHit']

/** An error response of the API. Its message is meant for users. */
export class ApiError extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly fields: { location: string; message: string }[] = [],
    /** With status 412: the object as it is stored now. */
    readonly current?: unknown,
  ) {
    super(message)
  }
}

/** Opens the login page, which returns here afterwards. */
export function toLogin(): void {
  const here = location.pathname + location.search + location.hash
  location.assign(`${at('/login')}?next=${encodeURIComponent(here)}`)
}

const problems: Middleware = {
  async onResponse({ response }) {
    if (response.ok) return
    let detail = ''
    let fields: { location: string; message: string }[] = []
    let current: unknown
    try {
      const p = (await response.clone().json()) as {
        detail?: string
        errors?: { location: string; message: string }[]
        current?: unknown
      }
      current = p.current
      detail = p.detail ?? ''
      fields = p.errors ?? []
    } catch {
      // Not an answer of the server, for example of a proxy.
    }
    if (response.status === 401) detail = 'Your session has ended: log in again, then repeat this.'
    throw new ApiError(detail || `The server returned status ${response.status}.`, response.status, fields, current)
  },
}

/** Whether the page has something to lose: before it, the login page opens instead of the dialog. */
let started = false
export const pageStarted = (): void => void (started = true)

/** Sends a request. If the session has ended, it is repeated after a login over the page. */
async function withLogin(request: Request): Promise<Response> {
  const again = request.clone()
  const response = await fetch(request)
  if (response.status !== 401) return response
  if (!started) {
    toLogin()
    return response
  }
  // A login may have ended while this request was on its way.
  return (await askLogin()) ? fetch(again) : response
}

/** The typed API client. Calls throw an ApiError, or a TypeError without a connection. */
export const api = createClient<paths>({
  baseUrl: location.origin + base.replace(/\/$/, ''),
  fetch: withLogin,
})
api.use(problems)

/** Returns the message to show for a caught error. */
export function messageOf(err: unknown): string {
  if (err instanceof ApiError) return err.message
  if (err instanceof TypeError) return 'The server cannot be reached.'
  return err instanceof Error ? err.message : String(err)
}
