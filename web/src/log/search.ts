import { computed, ref, shallowRef } from 'vue'
import { api, messageOf, type LogHit } from '@/api/client'

/** Maximum number of stored matches; the log may have more. */
export const maxHits = 10_000

/** Searches a complete log on the server in steps and navigates between matches. */
export function useLogSearch(id: string) {
  const query = ref('')
  const regex = ref(false)
  const exact = ref(false)
  const hits = shallowRef<LogHit[]>([])
  const at = ref(-1)
  const busy = ref(false)
  const error = ref('')
  const upTo = ref(0)
  const lastSeq = ref(0)
  let run = 0
  let abort: AbortController | undefined

  async function search(from: number): Promise<void> {
    const mine = ++run
    abort?.abort()
    abort = new AbortController()
    hits.value = []
    at.value = -1
    error.value = ''
    upTo.value = 0
    if (query.value === '') {
      busy.value = false
      return
    }
    busy.value = true
    try {
      for (let after = 0; ;) {
        const { data } = await api.GET('/api/v1/executions/{id}/search', {
          params: {
            path: { id },
            query: { q: query.value, regex: regex.value, case: exact.value, after, limit: 1000 },
          },
          signal: abort.signal,
        })
        if (mine !== run || !data) return
        hits.value = hits.value.concat(data.hits)
        upTo.value = data.next_after
        lastSeq.value = data.last_seq
        // The first match after the current position.
        if (at.value < 0) {
          const i = hits.value.findIndex(h => h.seq >= from)
          if (i >= 0) at.value = i
        }
        if (data.done || hits.value.length >= maxHits) break
        after = data.next_after
      }
      if (at.value < 0 && hits.value.length > 0) at.value = 0
    } catch (err) {
      if (mine === run && !(err instanceof DOMException)) error.value = messageOf(err)
    } finally {
      if (mine === run) busy.value = false
    }
  }

  function step(by: 1 | -1): void {
    const n = hits.value.length
    if (n > 0) at.value = (at.value + by + n) % n
  }

  function clear(): void {
    query.value = ''
    void search(0)
  }

  const current = computed(() => hits.value[at.value])
  const more = computed(() => hits.value.length >= maxHits)
  /** Finds the same matches in the text of a row, to highlight them. */
  const pattern = computed(() => {
    if (query.value === '') return undefined
    const source = regex.value ? query.value : query.value.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
    try {
      return new RegExp(source, exact.value ? 'g' : 'gi')
    } catch {
      return undefined // valid only in the server's syntax
    }
  })
  return { query, regex, exact, hits, at, busy, error, upTo, lastSeq, current, more, pattern, search, step, clear }
}
