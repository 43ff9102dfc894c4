import { connect, Multiplexer, type Ask, type Told } from './multiplex'

/** Where the streams of this tab come from. */
export interface Source {
  /** Opens a stream and returns the function that closes it. */
  open: (url: string, after: string | undefined, shared: boolean, told: (m: Told) => void) => () => void
  /** Reconnects streams that wait to. */
  again: () => void
}

let next = 1

function sourceOf(post: (m: Ask) => void, onTold: (f: (m: Told) => void) => void): Source {
  const open = new Map<number, (m: Told) => void>()
  onTold(m => open.get(m.id)?.(m))
  return {
    open(url, after, shared, told) {
      const id = next++
      open.set(id, told)
      post({ do: 'open', id, url, after, shared })
      return () => {
        open.delete(id)
        post({ do: 'close', id })
      }
    },
    again: () => post({ do: 'again' }),
  }
}

/** The streams of this tab over connections of its own. */
let ownSource: Source | undefined
export function own(): Source {
  if (ownSource) return ownSource
  const all = new Multiplexer(connect)
  let told: (m: Told) => void = () => {}
  const tab = { post: (m: Told) => queueMicrotask(() => told(m)) }
  setInterval(() => all.receive(tab, { do: 'alive' }), 20_000)
  return (ownSource = sourceOf(
    m => all.receive(tab, m),
    f => (told = f),
  ))
}

/** The streams that all tabs of the browser share, through a worker. */
let sharedSource: Source | undefined
export function shared(): Source {
  if (sharedSource) return sharedSource
  let worker: SharedWorker
  try {
    worker = new SharedWorker(new URL('./streams.worker.ts', import.meta.url), {
      type: 'module',
      name: 'agented-streams',
    })
  } catch {
    return (sharedSource = own()) // browsers without shared workers
  }
  const post = (m: Ask) => worker.port.postMessage(m)
  setInterval(() => post({ do: 'alive' }), 20_000)
  addEventListener('pagehide', () => post({ do: 'bye' }))
  return (sharedSource = sourceOf(post, f => {
    worker.port.onmessage = (e: MessageEvent<Told>) => f(e.data)
  }))
}
