import { ref, shallowRef } from 'vue'
import { messageOf } from '@/api/client'

interface Page<T> {
  items: T[]
  next_cursor: string | null
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
  return { items, cursor, loading, loaded, error, load }
}
