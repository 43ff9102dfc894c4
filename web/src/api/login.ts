import { reactive } from 'vue'

/** Whether the page waits for a login, and why. The login dialog shows it. */
export const login = reactive<{ needed: boolean; locked: boolean }>({ needed: false, locked: false })

let waiting: Promise<boolean> | undefined
let done: ((ok: boolean) => void) | undefined

/**
 * Opens the login dialog over the page; resolves to true after a login, here or in
 * another tab. With `locked`, the content of the page is hidden until then.
 */
export function askLogin(locked = false): Promise<boolean> {
  login.locked ||= locked
  login.needed = true
  waiting ??= new Promise(resolve => (done = resolve))
  return waiting
}

/** Ends the wait for a login. */
export function loginEnded(ok: boolean): void {
  if (!ok && login.locked) return
  login.needed = login.locked = false
  const resolve = done
  waiting = done = undefined
  resolve?.(ok)
}

// The tabs of this browser share one session.
const tabs = typeof BroadcastChannel === 'undefined' ? undefined : new BroadcastChannel('agented.session')

/** Notifies the other tabs of a login or a logout. */
export const tellTabs = (what: 'in' | 'out'): void => tabs?.postMessage(what)

/** Follows logins and logouts in other tabs. */
export function followTabs(back: () => void): void {
  tabs?.addEventListener('message', (e: MessageEvent<unknown>) => {
    if (e.data === 'out') void askLogin(true)
    if (e.data === 'in' && login.needed) back()
  })
}
