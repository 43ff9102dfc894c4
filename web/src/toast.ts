import { reactive } from 'vue'

export interface Toast {
  id: number
  text: string
  kind: 'info' | 'bad'
}
let next = 1
export const toasts = reactive<Toast[]>([])

/** Shows a notification. Errors stay until they are closed. */
export function toast(text: string, kind: Toast['kind'] = 'info'): void {
  const id = next++
  toasts.push({ id, text, kind })
  if (toasts.length > 4) toasts.shift()
  if (kind === 'info') window.setTimeout(() => dismiss(id), 5000)
}

export function dismiss(id: number): void {
  const i = toasts.findIndex(t => t.id === id)
  if (i >= 0) toasts.splice(i, 1)
}
