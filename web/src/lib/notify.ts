/** Rules of a trigger for notifications: rows of the form, and the field of the API. */
export interface NotifyRow {
  kind: string
  channels: string[]
}

/** The kinds of notifications with their meaning, in the order of the documentation. */
export const kinds: Record<string, string> = {
  failed: 'An execution failed, timed out or was interrupted',
  recovered: 'The first success after a failure',
  needs_person: 'A question, or an account that needs a login',
  paused: 'Paused at a cost ceiling or a budget',
  parked: 'Parked for a long time',
  budget: 'A budget reached its warning level or its limit',
  backup: 'A scheduled backup failed',
  no_effect: 'Ended without the expected outcome',
  held: 'A publication waits for approval',
  channel: 'Another channel gave up a notification',
}

/** Reads the field of the API. */
export function notifyForm(v: unknown): NotifyRow[] {
  if (typeof v !== 'object' || v === null || Array.isArray(v)) return []
  return Object.entries(v).map(([kind, list]) => ({
    kind,
    channels: Array.isArray(list) ? list.filter((n): n is string => typeof n === 'string') : [],
  }))
}

/** Converts rows to the field of the API; null without any. */
export function notifyBody(rows: NotifyRow[]): Record<string, string[]> | null {
  const set = rows.filter(r => r.kind)
  return set.length > 0 ? Object.fromEntries(set.map(r => [r.kind, r.channels])) : null
}
