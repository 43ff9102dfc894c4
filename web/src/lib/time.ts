import { onScopeDispose, ref, type Ref } from 'vue'

/** 1234 → "1.2 s". At most two units. */
export function duration(ms: number): string {
  if (ms < 0) ms = 0
  if (ms < 1000) return `${Math.round(ms)} ms`
  const s = ms / 1000
  if (s < 10) return `${s.toFixed(1)} s`
  if (s < 59.5) return `${Math.round(s)} s`
  const whole = Math.round(s)
  const m = Math.floor(whole / 60)
  if (m < 60) return whole % 60 ? `${m} m ${whole % 60} s` : `${m} m`
  const h = Math.floor(m / 60)
  if (h < 48) return m % 60 ? `${h} h ${m % 60} m` : `${h} h`
  const d = Math.floor(h / 24)
  return h % 24 ? `${d} d ${h % 24} h` : `${d} d`
}

/** Formats elapsed time in whole seconds. */
export function elapsed(ms: number): string {
  return ms < 10_000 ? `${Math.max(0, Math.floor(ms / 1000))} s` : duration(Math.floor(ms / 1000) * 1000)
}

/** Formats the distance to now. */
export function relative(at: number, now: number): string {
  const d = now - at
  if (Math.abs(d) < 5000) return 'just now'
  const text = elapsed(Math.abs(d)).split(' ').slice(0, 2).join(' ')
  return d > 0 ? `${text} ago` : `in ${text}`
}

const full = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium' })
export function absolute(at: string | number | Date): string {
  return full.format(new Date(at))
}

/** Formats the time of a log line in local time, with milliseconds. */
export function clockTime(at: string): string {
  const t = new Date(at)
  const p = (n: number, w = 2) => String(n).padStart(w, '0')
  return `${p(t.getHours())}:${p(t.getMinutes())}:${p(t.getSeconds())}.${p(t.getMilliseconds(), 3)}`
}

/** Formats the time of a log line since a start. */
export function sinceTime(at: string, start: number): string {
  const ms = Math.max(0, new Date(at).getTime() - start)
  const s = ms / 1000
  if (s < 60) return `+${s.toFixed(3)}s`
  const p = (n: number) => String(n).padStart(2, '0')
  const h = Math.floor(s / 3600)
  return `+${h > 0 ? `${h}:` : ''}${p(Math.floor(s / 60) % 60)}:${p(Math.floor(s) % 60)}.${String(Math.floor((ms % 1000) / 100))}`
}

// One timer for the whole page, active only while it is used.
const now = ref(Date.now())
let users = 0
let timer = 0

/** Returns the current time, updated every second. */
export function useNow(): Ref<number> {
  if (users++ === 0) {
    now.value = Date.now()
    timer = window.setInterval(() => (now.value = Date.now()), 1000)
  }
  onScopeDispose(() => {
    if (--users === 0) clearInterval(timer)
  })
  return now
}
