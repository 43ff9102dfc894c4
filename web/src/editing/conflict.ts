import { shallowReactive } from 'vue'
import { ApiError } from '@/api/client'

/** What two people changed in one object, for the dialog. */
export interface Conflict {
  noun: string
  name: string
  /** When the other change was stored, if the object has this time. */
  at: string
  fields: Field[]
  /** Who made the other change; empty until it is known. */
  by: string
  answer: (choice: Choice) => void
}
export interface Field {
  name: string
  before: string
  theirs: string
  mine: string
  /** Both sides changed it, to different values. */
  both: boolean
}
/** keep: store mine over it; theirs: drop mine; undefined: decide later. */
export type Choice = 'keep' | 'theirs' | undefined

/** The open conflict; the dialog shows it. */
export const conflict = shallowReactive<{ now: Conflict | undefined }>({ now: undefined })

type Body = Record<string, unknown>
const same = (a: unknown, b: unknown) => JSON.stringify(a ?? null) === JSON.stringify(b ?? null)

/** Returns the fields of `body` that differ from those before. */
export function changedFields<B extends object>(before: B, body: B): Partial<B> {
  const old = before as Body
  return Object.fromEntries(Object.entries(body).filter(([k, v]) => !(k in old) || !same(v, old[k]))) as Partial<B>
}

const hidden = /^(password|value|credentials|env)$/
/** A value as text; secrets are not shown. */
const text = (v: unknown) =>
  v === undefined || v === null || v === '' ? '' : typeof v === 'string' ? v : JSON.stringify(v, null, 2)

function shown(name: string, v: unknown): string {
  if (!hidden.test(name) || v === undefined || v === null) return text(v)
  if (typeof v === 'string') return v && '***'
  return Object.keys(v).join('\n')
}

/** Lists what each side changed, the fields of both first. */
export function fieldsOf(before: Body, theirs: Body, mine: Body): Field[] {
  const names = new Set([...Object.keys(changedFields(before, theirs)), ...Object.keys(changedFields(before, mine))])
  return [...names]
    .map(name => {
      const m = name in mine ? mine[name] : before[name]
      const [their, my] = [!same(theirs[name], before[name]), !same(m, before[name])]
      return {
        name,
        before: shown(name, before[name]),
        theirs: shown(name, theirs[name]),
        mine: shown(name, m),
        both: their && my && !same(m, theirs[name]),
      }
    })
    .sort((a, b) => Number(b.both) - Number(a.both))
}

interface Versioned {
  etag: string
  updated_at?: string
  name: string
}

/** An update of an object that another user may change at the same time. */
export interface Update<T extends Versioned, B extends object> {
  noun: string
  /** The object that the form was filled from. */
  base: T
  body: B
  /** The body of a form that shows an object unchanged. */
  bodyOf: (of: T) => B
  send: (body: Partial<B>, headers: { 'If-Match': string }) => Promise<T | undefined>
}

/** Asks what to do with a change that meets another one. */
export function askConflict<T extends Versioned, B extends object>(
  u: Update<T, B>,
  current: T,
  mine: Partial<B>,
): Promise<Choice> {
  conflict.now?.answer(undefined)
  return new Promise(done => {
    const of = shallowReactive<Conflict>({
      noun: u.noun,
      name: current.name,
      at: current.updated_at ?? '',
      by: '',
      fields: fieldsOf(u.bodyOf(u.base) as Body, u.bodyOf(current) as Body, mine as Body),
      answer: choice => {
        if (conflict.now === of) conflict.now = undefined
        done(choice)
      },
    })
    conflict.now = of
  })
}

/**
 * Sends the changed fields of a form. If the object was changed since the form was
 * filled, the user decides. Returns the object to show, or undefined if the user
 * wants to decide later; the form then stays as it is.
 */
export async function update<T extends Versioned, B extends object>(u: Update<T, B>): Promise<T | undefined> {
  const mine = changedFields(u.bodyOf(u.base), u.body)
  if (Object.keys(mine).length === 0) return u.base
  let etag = u.base.etag
  for (;;) {
    try {
      return await u.send(mine, { 'If-Match': `"${etag}"` })
    } catch (err) {
      const current = err instanceof ApiError && err.status === 412 ? (err.current as T | undefined) : undefined
      if (!current) throw err
      const choice = await askConflict(u, current, mine)
      if (choice === undefined) return undefined
      if (choice === 'theirs') return current
      etag = current.etag
    }
  }
}
