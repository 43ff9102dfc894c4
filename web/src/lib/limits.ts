import type { Schemas } from '@/api/client'

/** The limits of all processes of an execution; 0 is the default of the server. */
export interface LimitsForm {
  memory: number
  swap: number
  pids: number
  cpu_weight: number
  disk: number
}

export const emptyLimits = (): LimitsForm => ({ memory: 0, swap: 0, pids: 0, cpu_weight: 0, disk: 0 })

/** Converts limits of the API to a form. */
export function limitsForm(v: Schemas['Limits'] | null | undefined): LimitsForm {
  const out = emptyLimits()
  for (const name of Object.keys(out) as (keyof LimitsForm)[]) {
    const n: unknown = v?.[name]
    if (typeof n === 'number') out[name] = n
  }
  return out
}

/** Converts limits to those of the API, without default values; null without any. */
export function limitsBody(l: LimitsForm): Schemas['Limits'] | null {
  const set = Object.entries(l).filter(([, v]) => v > 0)
  return set.length > 0 ? Object.fromEntries(set) : null
}
