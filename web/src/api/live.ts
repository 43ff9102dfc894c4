import { onBeforeUnmount, reactive, readonly } from 'vue'
import { at } from '@/lib/base'
import type { Told } from './multiplex'
import { own, shared, type Source } from './source'

/** connecting: not open yet; reconnecting: was open, or fails; closed: ended for good. */
export type LiveState = 'connecting' | 'open' | 'reconnecting' | 'closed'

interface Options {
  /** The URL without `after`. */
  url: string
  /** The stream starts after this number; undefined: the server decides. */
  after?: number
  /** Handlers by event name. The id is the last event id. */
  on: Record<string, (data: string, id: string) => void>
  state?: (s: LiveState) => void
  /** Called when the server rejects the stream, for example because the login has expired. */
  refused?: () => void
}

// A hidden page releases its streams.
const hiddenFor = 20_000
// A larger gap between two timer ticks means that the machine slept.
const sleptFor = 25_000

/** Set once the worker's requests are rejected although those of the page are not. */
let ownOnly = false

/**
 * LiveStream is a stream of events that always reconnects: also after sleep, and when its
 * page becomes visible again. It resumes after the last id that it received. All tabs of
 * the browser share a few connections.
 */
export class LiveStream {
  private stop: (() => void) | undefined
  private source: Source | undefined
  private lastId: string | undefined
  private hideTimer = 0
  private clock = 0
  private seen = Date.now()
  private done = false

  constructor(private readonly o: Options) {
    if (o.after !== undefined) this.lastId = String(o.after)
    document.addEventListener('visibilitychange', this.visibility)
    window.addEventListener('online', this.again)
    window.addEventListener('agented:login', this.again)
    window.addEventListener('pageshow', this.shown)
    this.clock = window.setInterval(this.tick, 5000)
    this.connect()
    // A tab that was opened in the background is hidden without an event.
    if (document.hidden) this.visibility()
  }

  close(): void {
    if (this.done) return
    this.done = true
    this.drop()
    clearInterval(this.clock)
    clearTimeout(this.hideTimer)
    document.removeEventListener('visibilitychange', this.visibility)
    window.removeEventListener('online', this.again)
    window.removeEventListener('agented:login', this.again)
    window.removeEventListener('pageshow', this.shown)
    this.tell('closed')
  }

  private tell(s: LiveState): void {
    this.o.state?.(s)
  }

  private drop(): void {
    this.stop?.()
    this.stop = undefined
  }

  private connect(): void {
    this.drop()
    if (this.done) return
    const url = new URL(at(this.o.url), location.origin).href
    // These events are the same for all tabs. A page that joins reads the state after `open`.
    const same = /\/api\/v1\/events\/stream/.test(url)
    const source = ownOnly ? own() : shared()
    this.source = source
    const stop = source.open(url, this.lastId, same, m => {
      if (this.stop === stop && !this.done) this.take(m, source)
    })
    this.stop = stop
  }

  private take(m: Told, from: Source): void {
    switch (m.state) {
      case 'event':
        if (m.last !== '') this.lastId = m.last
        this.o.on[m.name]?.(m.data, m.last)
        break
      case 'open':
      case 'reconnecting':
        this.tell(m.state)
        break
      case 'ended':
        this.stop = undefined
        this.tell('open')
        break
      case 'refused':
        this.stop = undefined
        if (m.status === 401 && from !== own()) {
          ownOnly = true // for example, a proxy authenticates the page only
          this.connect()
          return
        }
        this.o.refused?.()
        break
    }
  }

  private readonly again = (): void => {
    if (this.done) return
    if (this.stop) this.source?.again()
    else if (!document.hidden) this.connect()
  }

  private readonly shown = (e: PageTransitionEvent): void => {
    if (e.persisted) this.connect()
  }

  private readonly visibility = (): void => {
    clearTimeout(this.hideTimer)
    if (document.hidden) {
      this.hideTimer = window.setTimeout(() => this.drop(), hiddenFor)
    } else if (!this.stop && !this.done) {
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
