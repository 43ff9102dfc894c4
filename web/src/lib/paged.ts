import { ref, shallowRef } from 'vue'
import { messageOf } from '@/api/client'

interface Page<T> {
  items: T[]
  next_cursor: string | null
}

/** Merges the newest page into a longer list: new items go first, known ones are replaced in place. */
export function merge<T>(list: T[], head: T[], key: (item: T) => string): T[] | undefined {
  const known = new Set(list.map(key))
  // Without a common item there may be a gap.
  if (list.length > 0 && !head.some(i => known.has(key(i)))) return undefined
  const newer = new Map(head.map(i => [key(i), i]))
  return [...head.filter(i => !known.has(key(i))), ...list.map(i => newer.get(key(i)) ?? i)]
}

/** A list that is loaded page by page. Outdated responses are dropped. */
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
  /** Loads new items and keeps the pages that are already loaded. */
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
