import { computed, ref, shallowRef } from 'vue'
import { api, messageOf, type LogHit } from '@/api/client'

// Matches that are fetched at once, and kept in memory on either side of the current one.
const page = 200
const keep = 2000

/**
 * Searches a log on the server from where the reader is, in both directions. Only the
 * matches around the current one are in memory, so a log may have any number of them;
 * they are counted separately.
 */
export function useLogSearch(id: string) {
  const query = ref('')
  const regex = ref(false)
  const exact = ref(false)
  /** Consecutive matches, in the order of the log. */
  const hits = shallowRef<LogHit[]>([])
  const at = ref(-1)
  const busy = ref(false)
  const error = ref('')
  /** Lines that were searched for the first match, and the last line of the log. */
  const searched = ref(0)
  const lastSeq = ref(0)
  /** Number of all matches, and of those before the first one that was found; undefined until they are counted. */
  const total = ref<number>()
  const anchor = ref<number>()
  /** Where hits[0] is: so many matches after the first one that was found, or from the start or the end of the log. */
  const place = shallowRef<{ of: 'anchor' | 'start' | 'end'; by: number }>({ of: 'anchor', by: 0 })
  const shift = (by: number) => (place.value = { ...place.value, by: place.value.by + by })
  // Whether hits begins with the first match of the log, or ends with the last one.
  let atStart = false
  let atEnd = false
  let run = 0
  let abort = new AbortController()
  let counting = new AbortController()

  async function ask(position: { after?: number; before?: number; count?: boolean }, signal = abort.signal) {
    const { data } = await api.GET('/api/v1/executions/{id}/search', {
      params: {
        path: { id },
        query: { q: query.value, regex: regex.value, case: exact.value, limit: page, ...position },
      },
      signal,
    })
    if (data) lastSeq.value = data.last_seq
    return data
  }

  /** Returns the next matches after a line, and whether the log ends with them. */
  async function forwards(after: number, mine: number): Promise<{ found: LogHit[]; done: boolean } | undefined> {
    for (let from = after; ;) {
      const data = await ask({ after: from })
      if (mine !== run || !data) return undefined
      searched.value += data.next_after - from
      if (data.hits.length > 0 || data.done) return { found: data.hits, done: data.done }
      from = data.next_after
    }
  }
  async function backwards(line: number, mine: number): Promise<{ found: LogHit[]; done: boolean } | undefined> {
    for (let to = line; ;) {
      const data = await ask({ before: to })
      if (mine !== run || !data) return undefined
      if (data.hits.length > 0 || data.done) return { found: data.hits, done: data.done }
      to = data.next_before
    }
  }

  async function counted(position: { after: number; before?: number }, signal: AbortSignal): Promise<number> {
    for (let n = 0, after = position.after; ;) {
      const data = await ask({ ...position, after, count: true }, signal)
      if (!data || signal.aborted) throw new DOMException('stopped', 'AbortError')
      n += data.count
      if (data.done) return n
      after = data.next_after
    }
  }
  /** Counts all matches while the search continues. */
  async function countAll(first: number): Promise<void> {
    const { signal } = counting
    try {
      anchor.value = first > 1 ? await counted({ after: 0, before: first }, signal) : 0
      total.value = anchor.value + (await counted({ after: first - 1 }, signal))
    } catch {
      // A newer search, or no connection: the position stays unknown.
    }
  }

  /** Runs a step; only the newest one has an effect. */
  async function work(what: (mine: number) => Promise<void>): Promise<void> {
    const mine = ++run
    abort.abort()
    abort = new AbortController()
    error.value = ''
    busy.value = true
    try {
      await what(mine)
    } catch (err) {
      if (mine === run && !(err instanceof DOMException)) error.value = messageOf(err)
    } finally {
      if (mine === run) busy.value = false
    }
  }

  async function search(from: number): Promise<void> {
    hits.value = []
    at.value = -1
    anchor.value = total.value = undefined
    place.value = { of: 'anchor', by: 0 }
    counting.abort()
    counting = new AbortController()
    atStart = atEnd = false
    searched.value = 0
    if (query.value === '') {
      run++
      abort.abort()
      busy.value = false
      error.value = ''
      return
    }
    await work(async mine => {
      let got = await forwards(Math.max(0, from - 1), mine)
      if (got && got.found.length === 0 && from > 1) {
        got = await forwards(0, mine) // from the start
        atStart = true
      }
      if (!got) return
      hits.value = got.found
      atEnd = got.done
      if (from <= 1) atStart = true
      if (got.found.length === 0) {
        total.value = 0
        return
      }
      at.value = 0
      void countAll(got.found[0]!.seq)
    })
  }

  function step(by: 1 | -1): void {
    const next = at.value + by
    if (at.value < 0 || busy.value) return
    if (hits.value[next]) {
      at.value = next
      return
    }
    void work(by > 0 ? onward : back)
  }

  async function onward(mine: number): Promise<void> {
    const last = hits.value.at(-1)!.seq
    const got = atEnd ? undefined : await forwards(last, mine)
    if (mine !== run) return
    if (got && got.found.length > 0) {
      atEnd = got.done
      const all = [...hits.value, ...got.found]
      const cut = Math.max(0, all.length - keep)
      if (cut > 0) atStart = false
      shift(cut)
      at.value = hits.value.length - cut
      hits.value = all.slice(cut)
      return
    }
    if (atStart) {
      atEnd = true
      at.value = 0
      return
    }
    const first = await forwards(0, mine)
    if (!first || mine !== run) return
    hits.value = first.found
    atStart = true
    atEnd = first.done
    at.value = 0
    place.value = { of: 'start', by: 0 }
  }

  async function back(mine: number): Promise<void> {
    const got = atStart ? undefined : await backwards(hits.value[0]!.seq, mine)
    if (mine !== run) return
    if (got && got.found.length > 0) {
      atStart = got.done
      const all = [...got.found, ...hits.value]
      if (all.length > keep) atEnd = false
      hits.value = all.slice(0, keep)
      at.value = got.found.length - 1
      shift(-got.found.length)
      return
    }
    atStart = true
    if (atEnd) {
      at.value = hits.value.length - 1
      return
    }
    const last = await backwards(lastSeq.value + 1, mine)
    if (!last || mine !== run) return
    hits.value = last.found
    atEnd = true
    atStart = last.done
    at.value = last.found.length - 1
    place.value = { of: 'end', by: -last.found.length }
  }

  function clear(): void {
    query.value = ''
    void search(0)
  }

  const current = computed(() => hits.value[at.value])
  /** Number of the current match among all, counted from 1. */
  const position = computed(() => {
    const from = { anchor: anchor.value, start: 0, end: total.value }[place.value.of]
    return from === undefined ? undefined : from + place.value.by + at.value + 1
  })
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
  return {
    ...{ query, regex, exact, hits, at, busy, error, searched, lastSeq, total, position, current, pattern },
    ...{ search, step, clear },
  }
}
