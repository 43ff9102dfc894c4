import type { Execution, Status, Usage } from '@/api/client'

const numbers = new Intl.NumberFormat()
export function count(n: number): string {
  return numbers.format(n)
}

/** "3 files +40 −2" */
export function changed(c: { files: number; added: number; removed: number }): string {
  return `${count(c.files)} ${c.files === 1 ? 'file' : 'files'} +${count(c.added)} −${count(c.removed)}`
}

export function bytes(n: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  let u = 0
  while (n >= 1024 && u < units.length - 1) {
    n /= 1024
    u++
  }
  return `${u === 0 || n >= 100 ? Math.round(n) : n.toFixed(1)} ${units[u]}`
}

/** Formats a figure that may be unknown. */
export function known(n: number | null | undefined): string {
  return n === null || n === undefined ? 'unknown' : count(n)
}

export function cost(usd: number | null | undefined): string {
  if (usd === null || usd === undefined) return 'unknown'
  if (usd === 0) return '$0'
  return `$${usd < 0.1 ? usd.toFixed(4) : usd.toFixed(2)}`
}

export function tokens(u: Usage | null | undefined): string {
  if (!u) return 'unknown'
  return `${known(u.input_tokens)} in, ${known(u.output_tokens)} out`
}

export const isFinal = (s: Status): boolean => s !== 'pending' && s !== 'running'

export const statusText: Record<Status, string> = {
  pending: 'Waiting',
  running: 'Running',
  success: 'Success',
  failed: 'Failed',
  timeout: 'Timed out',
  cancelled: 'Cancelled',
  interrupted: 'Interrupted',
}

/** Returns the reason for the status of an execution in one sentence; empty if the status says everything. */
export function reasonOf(e: Execution): string {
  if (e.cancel_requested) return 'Cancel was requested; the process is being terminated.'
  const text = e.reason || e.error_message
  if (e.pause) return sentence(e.pause.paused_reason || `Paused${e.pause.paused_by ? ` by ${e.pause.paused_by}` : ''}`)
  if (text) return sentence(text)
  switch (e.status) {
    case 'pending':
      return 'Waiting for a free slot.'
    case 'running':
      return e.attempt_number > 1 ? `Attempt ${e.attempt_number} is running.` : ''
    case 'success':
      return ''
    case 'failed':
      return e.exit_code === null ? '' : `Exit code ${e.exit_code}.`
    default:
      return `${statusText[e.status]}.`
  }
}

/** Returns the latest time at which a parked execution resumes; empty if it is not parked or the time is unknown. */
export function parkedUntil(e: Execution): string {
  return e.status === 'pending' && e.waiting_on && e.parked_until ? e.parked_until : ''
}

function sentence(text: string): string {
  const first = text.charAt(0).toUpperCase() + text.slice(1)
  return /[.!?…]$/.test(first) ? first : `${first}.`
}

/** Returns what or who fired an execution. */
export function firedBy(e: Execution): string {
  const by = e.actor ? ` by ${e.actor}` : ''
  const texts: Record<string, string> = {
    manual: `Run${by || ' manually'}`,
    retry: `Retried${by}`,
    schedule: 'Schedule',
    webhook: 'Webhook',
    github: 'GitHub',
    message: 'Message',
    conversation: 'Conversation',
  }
  return texts[e.source] ?? e.source
}

/** Shortens a User-Agent header to browser and system. */
export function browserName(agent: string): string {
  const name = /(Firefox|Edg|OPR|Chrome|Safari|curl)\/[\d.]+/.exec(agent)?.[1] ?? agent.slice(0, 40)
  const system = /Windows|Mac OS X|Android|iPhone|Linux/.exec(agent)?.[0]
  return [{ Edg: 'Edge', OPR: 'Opera' }[name] ?? name, system].filter(Boolean).join(', ') || 'unknown'
}
