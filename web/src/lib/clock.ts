/** Formats a time for a datetime-local input, in the browser's time zone. */
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

/** Returns the Monday at midnight, in the browser's time zone, of the week that many weeks from now. */
export function weekStart(now: Date, weeks: number): Date {
  return new Date(now.getFullYear(), now.getMonth(), now.getDate() - ((now.getDay() + 6) % 7) + 7 * weeks)
}

/** Returns the seven days of a week and the day after them. */
export function daysOf(start: Date): Date[] {
  return Array.from({ length: 8 }, (_, i) => new Date(start.getFullYear(), start.getMonth(), start.getDate() + i))
}

/** Returns how many minutes the clock is set forward between two times; negative: back. */
export function clockShift(from: Date, to: Date): number {
  return from.getTimezoneOffset() - to.getTimezoneOffset()
}

/** Names of the time zones that the browser knows. */
export function zones(): string[] {
  return ['UTC', ...Intl.supportedValuesOf('timeZone')]
}
