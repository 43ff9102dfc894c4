import { reactive } from 'vue'
import { api, ApiError, messageOf } from '@/api/client'

/** A message that the server has not confirmed yet. Its key makes retries idempotent. */
export interface Outgoing {
  key: string
  text: string
  files: string[]
  state: 'sending' | 'waiting' | 'refused'
  error: string
}

const place = (id: string) => `agented.said.${id}`

function read(id: string): Outgoing[] {
  try {
    const list = JSON.parse(sessionStorage.getItem(place(id)) ?? '[]') as Outgoing[]
    return Array.isArray(list) ? list : []
  } catch {
    return []
  }
}

export const newKey = (): string =>
  Array.from(crypto.getRandomValues(new Uint8Array(16)), b => b.toString(16).padStart(2, '0')).join('')

/** Adds a message to the outbox of a conversation whose page is not open yet. */
export function leave(id: string, text: string, files: string[]): void {
  sessionStorage.setItem(
    place(id),
    JSON.stringify([...read(id), { key: newKey(), text, files, state: 'sending', error: '' }]),
  )
}

/** Sends messages in order, one at a time, and retries after a lost connection or a reload. */
export class Outbox {
  list = reactive<Outgoing[]>([])
  private busy = false
  private done = false
  private timer = 0
  private tries = 0

  constructor(
    private readonly id: string,
    private readonly said: (number: number, m: Outgoing) => void,
  ) {
    this.list.push(...read(id).map(m => ({ ...m, state: 'sending' as const })))
    window.addEventListener('online', this.go)
    void this.go()
  }

  stop(): void {
    this.done = true
    clearTimeout(this.timer)
    window.removeEventListener('online', this.go)
  }

  say(text: string, files: string[]): void {
    this.list.push({ key: newKey(), text, files, state: 'sending', error: '' })
    this.keep()
    void this.go()
  }

  drop(m: Outgoing): void {
    const i = this.list.indexOf(m)
    if (i >= 0) this.list.splice(i, 1)
    this.keep()
    void this.go()
  }

  private keep(): void {
    if (this.list.length === 0) sessionStorage.removeItem(place(this.id))
    else sessionStorage.setItem(place(this.id), JSON.stringify(this.list))
  }

  private readonly go = async (): Promise<void> => {
    clearTimeout(this.timer)
    if (this.busy) return
    this.busy = true
    while (!this.done) {
      const m = this.list[0]
      if (!m || m.state === 'refused') break
      try {
        m.state = 'sending'
        const { data } = await api.POST('/api/v1/conversations/{id}/messages', {
          params: { path: { id: this.id }, header: { 'Idempotency-Key': m.key } },
          body: { text: m.text, files: m.files },
        })
        this.list.splice(this.list.indexOf(m), 1)
        this.keep()
        if (data) this.said(data.number, m)
        this.tries = 0
      } catch (err) {
        if (err instanceof ApiError && err.status < 500 && err.status !== 429) {
          m.state = 'refused'
          m.error = messageOf(err)
          this.keep()
          break
        }
        m.state = 'waiting'
        m.error = messageOf(err)
        this.timer = window.setTimeout(() => void this.go(), Math.min(8000, 500 * 2 ** Math.min(4, this.tries++)))
        break
      }
    }
    this.busy = false
  }
}
