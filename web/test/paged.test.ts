import { describe, expect, test, vi } from 'vitest'
import { merge, usePaged } from '@/lib/paged'

const key = (i: { id: number }) => String(i.id)
const items = (...ids: number[]) => ids.map(id => ({ id, v: 0 }))

describe('a list that is looked at again', () => {
  test('what is new comes in front, and what is known is renewed in its place', () => {
    expect(
      merge(
        items(3, 2, 1),
        [
          { id: 5, v: 1 },
          { id: 3, v: 1 },
        ],
        key,
      ),
    ).toEqual([
      { id: 5, v: 1 },
      { id: 3, v: 1 },
      { id: 2, v: 0 },
      { id: 1, v: 0 },
    ])
  })

  test('without a common item the list restarts, because there may be a gap', () => {
    expect(merge(items(3, 2, 1), items(9, 8), key)).toBeUndefined()
    expect(merge([], items(9, 8), key)).toEqual(items(9, 8))
  })

  test('pages that were read stay, and the cursor behind them too', async () => {
    const pages = [
      { items: items(4, 3), next_cursor: 'a' },
      { items: items(2, 1), next_cursor: 'b' },
      { items: items(5, 4), next_cursor: 'c' },
    ]
    const list = usePaged(vi.fn(() => Promise.resolve(pages.shift()!)))
    await list.load()
    await list.load(true)
    await list.refresh(key)
    expect(list.items.value.map(i => i.id)).toEqual([5, 4, 3, 2, 1])
    expect(list.cursor.value).toBe('b')
  })

  test('an answer that was overtaken is dropped', async () => {
    let first: (p: { items: { id: number; v: number }[]; next_cursor: null }) => void = () => {}
    const answers = [
      new Promise<{ items: { id: number; v: number }[]; next_cursor: null }>(done => (first = done)),
      Promise.resolve({ items: items(2), next_cursor: null }),
    ]
    const list = usePaged(() => answers.shift()!)
    const slow = list.load()
    await list.load()
    first({ items: items(1), next_cursor: null })
    await slow
    expect(list.items.value).toEqual(items(2))
  })
})
