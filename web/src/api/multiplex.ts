// The streams of all tabs of a browser, over few connections. A browser allows six
// connections per server over plain HTTP/1.1, for all tabs together; a seventh waits.

/** What a tab sends. */
export type Ask =
  | { do: 'open'; id: number; url: string; after: string | undefined; shared: boolean }
  | { do: 'close'; id: number }
  | { do: 'alive' }
  | { do: 'bye' }
  | { do: 'again' }

/** What a tab receives about one of its streams. */
export type Told =
  | { id: number; state: 'open' | 'reconnecting' | 'ended' }
  | { id: number; state: 'refused'; status: number }
  | { id: number; state: 'event'; name: string; data: string; last: string }

export interface Tab {
  post: (m: Told) => void
}

interface Wanted {
  tab: Tab
  id: number
}

/** One stream, of one tab or shared by all that want the same URL. */
interface Stream {
  url: string
  last: string | undefined
  for: Wanted[]
  shared: boolean
  stop: (() => void) | undefined
  /** When the connection began, or when the stream began to wait for one. */
  since: number
  open: boolean
  tries: number
  timer: ReturnType<typeof setTimeout> | undefined
}

/** Connections at once; the others of the browser's six are for requests. */
export const slots = 4
// A stream that waits gets the connection of another after this time, in turn.
const turn = 1500
// A tab that ended without a word is forgotten.
const silent = 90_000

export class Multiplexer {
  private streams = new Set<Stream>()
  private tabs = new Map<Tab, number>()
  private clock: ReturnType<typeof setInterval>

  constructor(private readonly connect: Connect) {
    this.clock = setInterval(() => this.tick(), 500)
  }

  end(): void {
    clearInterval(this.clock)
    for (const s of this.streams) this.drop(s)
    this.streams.clear()
  }

  receive(tab: Tab, m: Ask): void {
    this.tabs.set(tab, Date.now())
    switch (m.do) {
      case 'open':
        this.open(tab, m)
        break
      case 'close':
        this.close(w => w.tab === tab && w.id === m.id)
        break
      case 'bye':
        this.tabs.delete(tab)
        this.close(w => w.tab === tab)
        break
      case 'again':
        for (const s of this.streams) {
          if (s.for.some(w => w.tab === tab) && !s.open) {
            this.drop(s)
            s.tries = 0
          }
        }
        break
    }
    this.share()
  }

  private open(tab: Tab, m: Extract<Ask, { do: 'open' }>): void {
    const known = m.shared ? [...this.streams].find(s => s.shared && s.url === m.url) : undefined
    if (known) {
      known.for.push({ tab, id: m.id })
      if (known.open) tab.post({ id: m.id, state: 'open' })
      return
    }
    this.streams.add({
      url: m.url,
      last: m.after,
      for: [{ tab, id: m.id }],
      shared: m.shared,
      stop: undefined,
      since: 0,
      open: false,
      tries: 0,
      timer: undefined,
    })
  }

  private close(which: (w: Wanted) => boolean): void {
    for (const s of this.streams) {
      s.for = s.for.filter(w => !which(w))
      if (s.for.length > 0) continue
      this.drop(s)
      this.streams.delete(s)
    }
  }

  private drop(s: Stream): void {
    clearTimeout(s.timer)
    s.timer = undefined
    s.stop?.()
    s.stop = undefined
    s.open = false
  }

  /** Gives the connections to the streams that have waited longest; shared ones keep theirs. */
  private share(): void {
    const now = Date.now()
    const waiting = [...this.streams].filter(s => !s.stop && !s.timer)
    waiting.sort((a, b) => Number(b.shared) - Number(a.shared) || a.since - b.since)
    const busy = [...this.streams].filter(s => s.stop)
    const yielding = busy.filter(s => !s.shared && s.open && now - s.since >= turn).sort((a, b) => a.since - b.since)
    let free = slots - busy.length
    for (const s of waiting) {
      if (free <= 0) {
        const other = yielding.shift()
        if (!other) return
        this.drop(other)
        other.since = now
        free++
      }
      free--
      this.begin(s)
    }
  }

  private tell(s: Stream, m: DistributiveOmit<Told, 'id'>): void {
    for (const w of [...s.for]) w.tab.post({ ...m, id: w.id } as Told)
  }

  private begin(s: Stream): void {
    s.since = Date.now()
    const stop = this.connect(s.url, s.last, {
      open: () => {
        if (s.stop !== stop) return
        s.open = true
        s.tries = 0
        this.tell(s, { state: 'open' })
      },
      event: (name, data, last) => {
        if (s.stop !== stop) return
        if (last) s.last = last
        this.tell(s, { state: 'event', name, data, last: s.last ?? '' })
      },
      end: status => {
        if (s.stop !== stop) return
        this.drop(s)
        const over = status >= 400 && status < 500 && status !== 408 && status !== 429
        if (status === 204 || over) {
          this.tell(s, status === 204 ? { state: 'ended' } : { state: 'refused', status })
          this.streams.delete(s)
        } else {
          this.tell(s, { state: 'reconnecting' })
          const wait = Math.min(10_000, 500 * 2 ** Math.min(s.tries++, 5)) * (0.75 + Math.random() / 2)
          s.timer = setTimeout(() => {
            s.timer = undefined
            this.share()
          }, wait)
        }
        this.share()
      },
    })
    s.stop = stop
  }

  private tick(): void {
    const now = Date.now()
    for (const [tab, seen] of this.tabs) if (now - seen > silent) this.receive(tab, { do: 'bye' })
    this.share()
  }
}

type DistributiveOmit<T, K extends PropertyKey> = T extends unknown ? Omit<T, K> : never

export interface Hooks {
  open: () => void
  event: (name: string, data: string, last: string) => void
  /** The connection is over: with the status of a response that is no stream, or 0. */
  end: (status: number) => void
}
export type Connect = (url: string, after: string | undefined, hooks: Hooks) => () => void

/** Reads an event stream with fetch, which shows the status of a rejected one. */
export const connect: Connect = (url, after, hooks) => {
  const stopped = new AbortController()
  const to = new URL(url)
  if (after !== undefined) to.searchParams.set('after', after)
  void (async () => {
    let status = 0
    await undefined // the caller knows the function below before the first event
    try {
      const r = await fetch(to, { headers: { Accept: 'text/event-stream' }, cache: 'no-store', signal: stopped.signal })
      if (r.status !== 200 || !r.body) {
        status = r.status
        await r.body?.cancel()
      } else {
        hooks.open()
        const parse = parser(hooks.event)
        const reader = r.body.getReader()
        const text = new TextDecoder()
        for (;;) {
          const { done, value } = await reader.read()
          if (done) break
          parse(text.decode(value, { stream: true }))
        }
      }
    } catch {
      // The connection broke, or was stopped.
    }
    if (!stopped.signal.aborted) hooks.end(status)
  })()
  return () => stopped.abort()
}

/** Returns a function that takes the text of an event stream in pieces. */
export function parser(event: Hooks['event']): (piece: string) => void {
  let rest = ''
  let name = ''
  let data: string[] = []
  let last = ''
  return piece => {
    rest += piece
    const lines = rest.split(/\r\n|\n|\r(?!$)/)
    rest = lines.pop() ?? ''
    for (const line of lines) {
      if (line === '') {
        if (data.length > 0) event(name || 'message', data.join('\n'), last)
        name = ''
        data = []
        continue
      }
      const colon = line.indexOf(':')
      const field = colon < 0 ? line : line.slice(0, colon)
      const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '')
      if (field === 'event') name = value
      else if (field === 'data') data.push(value)
      else if (field === 'id' && !value.includes('\0')) last = value
    }
  }
}
