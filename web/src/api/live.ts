import { onBeforeUnmount, reactive, readonly } from 'vue'
import { at } from '@/lib/base'

/** connecting: not open yet; reconnecting: was open, or fails; closed: ended for good. */
export type LiveState = 'connecting' | 'open' | 'reconnecting' | 'closed'

interface Options {
  /** The URL without `after`. */
  url: string
  /** The stream starts after this number; undefined: the server decides. */
  after?: number
  /** Handlers by event name. The id is the browser's last event id. */
  on: Record<string, (data: string, id: string) => void>
  state?: (s: LiveState) => void
  /** Called when the server rejects the stream, for example because the login has expired. */
  refused?: () => void
}

// A hidden page closes its connection, because a browser allows six per server for all
// tabs.
const hiddenFor = 20_000
// A larger gap between two timer ticks means that the machine slept.
const sleptFor = 25_000

/**
 * LiveStream is an EventSource that always reconnects: also after a response that ends
 * an EventSource, after sleep, and when its page becomes visible again. It resumes after
 * the last id that it received.
 */
export class LiveStream {
  private source: EventSource | undefined
  private lastId: string | undefined
  private tries = 0
  private timer = 0
  private hideTimer = 0
  private clock = 0
  private seen = Date.now()
  private done = false
  private opened = false

  constructor(private readonly o: Options) {
    if (o.after !== undefined) this.lastId = String(o.after)
    document.addEventListener('visibilitychange', this.visibility)
    window.addEventListener('online', this.again)
    window.addEventListener('pageshow', this.shown)
    this.clock = window.setInterval(this.tick, 5000)
    this.connect()
  }

  close(): void {
    if (this.done) return
    this.done = true
    this.drop()
    clearInterval(this.clock)
    clearTimeout(this.hideTimer)
    document.removeEventListener('visibilitychange', this.visibility)
    window.removeEventListener('online', this.again)
    window.removeEventListener('pageshow', this.shown)
    this.tell('closed')
  }

  private tell(s: LiveState): void {
    this.o.state?.(s)
  }

  private drop(): void {
    clearTimeout(this.timer)
    this.source?.close()
    this.source = undefined
  }

  private connect(): void {
    this.drop()
    if (this.done) return
    const url = new URL(at(this.o.url), location.origin)
    if (this.lastId !== undefined) url.searchParams.set('after', this.lastId)
    const source = new EventSource(url)
    this.source = source
    source.onopen = () => {
      this.tries = 0
      this.opened = true
      this.tell('open')
    }
    source.onerror = e => {
      // The server may also send an event named error.
      if (this.source !== source || e instanceof MessageEvent) return
      this.tell(this.opened || this.tries > 0 ? 'reconnecting' : 'connecting')
      this.tries++
      if (source.readyState !== EventSource.CLOSED) return // the browser reconnects
      this.o.refused?.()
      const wait = Math.min(10_000, 500 * 2 ** Math.min(this.tries, 5)) * (0.75 + Math.random() / 2)
      clearTimeout(this.timer)
      this.timer = window.setTimeout(() => this.connect(), wait)
      this.tell('reconnecting')
    }
    // The stream of all executions sends its start position in this event.
    const on: Options['on'] = { position: () => {}, ...this.o.on }
    for (const [name, take] of Object.entries(on)) {
      source.addEventListener(name, e => {
        if (this.source !== source || this.done || !(e instanceof MessageEvent)) return
        const m = e as MessageEvent<string>
        if (m.lastEventId !== '') this.lastId = m.lastEventId
        take(m.data, m.lastEventId)
      })
    }
  }

  private readonly again = (): void => {
    if (!this.done && this.source?.readyState !== EventSource.OPEN) this.connect()
  }

  private readonly shown = (e: PageTransitionEvent): void => {
    if (e.persisted) this.connect()
  }

  private readonly visibility = (): void => {
    clearTimeout(this.hideTimer)
    if (document.hidden) {
      this.hideTimer = window.setTimeout(() => this.drop(), hiddenFor)
    } else if (!this.source && !this.done) {
      this.connect()
    }
  }

  private readonly tick = (): void => {
    const now = Date.now()
    const slept = now - this.seen > sleptFor
    this.seen = now
    // The connection may have died without an error.
    if (slept && !this.done && !document.hidden) this.connect()
  }
}

/** States of the streams of this page, for the banner. */
const standing = reactive(new Map<symbol, LiveState>())

export const liveStates = readonly(standing)

/** Opens a stream that lives as long as the calling component and reports its state to the banner. */
export function useLive(o: Omit<Options, 'state'> & { state?: (s: LiveState) => void }): LiveStream {
  const key = Symbol('live')
  const stream = new LiveStream({
    ...o,
    state: s => {
      if (s === 'closed') standing.delete(key)
      else standing.set(key, s)
      o.state?.(s)
    },
  })
  onBeforeUnmount(() => stream.close())
  return stream
}
