/** A time for an input of type datetime-local, on the clock of this browser. */
export function toInput(iso: string): string {
  if (!iso) return ''
  const t = new Date(iso)
  if (Number.isNaN(t.getTime())) return ''
  const p = (n: number) => String(n).padStart(2, '0')
  return `${t.getFullYear()}-${p(t.getMonth() + 1)}-${p(t.getDate())}T${p(t.getHours())}:${p(t.getMinutes())}:${p(t.getSeconds())}`
}

export function fromInput(local: string): string {
  return local ? new Date(local).toISOString().replace(/\.\d+Z$/, 'Z') : ''
}

/** The Monday, at midnight on this browser's clock, of the week that is so many after this one. */
export function weekStart(now: Date, weeks: number): Date {
  return new Date(now.getFullYear(), now.getMonth(), now.getDate() - ((now.getDay() + 6) % 7) + 7 * weeks)
}

/** The seven days of a week, and the day behind them. */
export function daysOf(start: Date): Date[] {
  return Array.from({ length: 8 }, (_, i) => new Date(start.getFullYear(), start.getMonth(), start.getDate() + i))
}

/** By how many minutes this browser's clock is set forward (or back, below 0) between two times. */
export function clockShift(from: Date, to: Date): number {
  return from.getTimezoneOffset() - to.getTimezoneOffset()
}

/** The names of the time zones that this browser knows. */
export function zones(): string[] {
  return ['UTC', ...Intl.supportedValuesOf('timeZone')]
}
