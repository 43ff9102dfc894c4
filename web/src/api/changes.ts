import { onBeforeUnmount } from 'vue'
import { loadSession } from '@/session'
import { useLive } from './live'

/** Lists for which the server sends change events. */
export type ListName =
  'delivery' | 'tick' | 'trigger' | 'execution' | 'account' | 'agent' | 'budget' | 'conversation' | 'member'

// Minimum time between two reloads of a busy list.
const pause = 400

/**
 * Calls `look` when one of the lists changes and after each reconnect, so that no
 * change is missed and no polling is needed.
 */
export function useChanges(lists: ListName[], look: (which: Set<ListName>) => void): void {
  let timer = 0
  const which = new Set<ListName>()
  const soon = (name: ListName) => {
    which.add(name)
    if (timer) return
    timer = window.setTimeout(() => {
      timer = 0
      const now = new Set(which)
      which.clear()
      look(now)
    }, pause)
  }
  useLive({
    url: '/api/v1/events/stream?changes=true',
    on: Object.fromEntries(lists.map(name => [name, () => soon(name)])),
    state: s => s === 'open' && lists.forEach(soon),
    refused: () => void loadSession().catch(() => {}),
  })
  onBeforeUnmount(() => clearTimeout(timer))
}
