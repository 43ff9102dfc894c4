// Holds the event streams of all tabs of this browser.
import { connect, Multiplexer, type Ask, type Tab } from './multiplex'

const all = new Multiplexer(connect)
;(self as unknown as { onconnect: (e: MessageEvent) => void }).onconnect = e => {
  const port = e.ports[0]!
  const tab: Tab = { post: m => port.postMessage(m) }
  port.onmessage = (m: MessageEvent<Ask>) => all.receive(tab, m.data)
}
