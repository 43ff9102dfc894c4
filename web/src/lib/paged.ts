import { ref, shallowRef } from 'vue'
import { messageOf } from '@/api/client'

interface Page<T> {
  items: T[]
  next_cursor: string | null
}

/** The newest page put into a list that may hold more: what is new comes in front, what is known is renewed in its place. */
export function merge<T>(list: T[], head: T[], key: (item: T) => string): T[] | undefined {
  const known = new Set(list.map(key))
  // Without a common item there may be a gap between the two.
  if (list.length > 0 && !head.some(i => known.has(key(i)))) return undefined
  const newer = new Map(head.map(i => [key(i), i]))
  return [...head.filter(i => !known.has(key(i))), ...list.map(i => newer.get(key(i)) ?? i)]
}

/** A list that is read page by page. An answer that was overtaken by another question is dropped. */
export function usePaged<T>(read: (cursor?: string) => Promise<Page<T> | undefined>) {
  const items = shallowRef<T[]>([])
  const cursor = ref<string | null>(null)
  const loading = ref(false)
  const loaded = ref(false)
  const error = ref('')
  let run = 0
  async function load(more = false): Promise<void> {
    if (more && (loading.value || !cursor.value)) return
    const mine = ++run
    loading.value = true
    try {
      const page = await read(more ? cursor.value! : undefined)
      if (mine !== run || !page) return
      items.value = more ? [...items.value, ...page.items] : page.items
      cursor.value = page.next_cursor
      error.value = ''
      loaded.value = true
    } catch (err) {
      if (mine === run) error.value = messageOf(err)
    } finally {
      if (mine === run) loading.value = false
    }
  }
  /** Looks for what is new, and keeps what was read behind it. */
  async function refresh(key: (item: T) => string): Promise<void> {
    if (loading.value || !loaded.value) return load()
    const mine = run
    try {
      const page = await read()
      if (mine !== run || !page) return
      const all = merge(items.value, page.items, key)
      if (items.value.length <= page.items.length || !all) cursor.value = page.next_cursor
      items.value = all && items.value.length > page.items.length ? all : page.items
      error.value = ''
    } catch (err) {
      if (mine === run) error.value = messageOf(err)
    }
  }
  return { items, cursor, loading, loaded, error, load, refresh }
}
