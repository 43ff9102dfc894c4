import { onBeforeUnmount } from 'vue'
import { loadSession } from '@/session'
import { useLive } from './live'

/** Lists of which the server says that they are another one. */
export type ListName = 'delivery' | 'tick' | 'trigger' | 'execution' | 'account' | 'agent' | 'budget' | 'conversation' | 'member'

// So that a busy list is read once in a while, and not for each thing in it.
const pause = 400

/**
 * Calls `look` when one of the lists has changed, and whenever the connection
 * is there anew: nothing is missed, and nobody polls.
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
