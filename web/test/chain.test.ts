import { describe, expect, it } from 'vitest'
import { layout, type Link } from '@/lib/chain'

const link = (id: string, parent = ''): Link => ({ kind: 'message', id, parent, depth: 0, title: id, created_at: '' })

describe('a chain of causes', () => {
  it('stands as a tree: a parent next to its first child, the others below', () => {
    const l = layout([link('a'), link('b', 'a'), link('c', 'b'), link('d', 'a'), link('e', 'd')])
    expect(Object.fromEntries(l.nodes.map(n => [n.link.id, [n.x, n.y]]))).toEqual({
      a: [0, 0],
      b: [1, 0],
      c: [2, 0],
      d: [1, 1],
      e: [2, 1],
    })
    expect(l.edges).toHaveLength(4)
    expect([l.columns, l.rows]).toEqual([3, 2])
  })
  it('leaves nothing out, also where a cause is gone or stands in a circle, and puts no two on one place', () => {
    for (let round = 0; round < 200; round++) {
      const n = 1 + (round % 30)
      const links = Array.from({ length: n }, (_, i) =>
        link(
          `n${i}`,
          round % 3 === 0
            ? `n${Math.floor(Math.random() * n)}`
            : i > 0 && Math.random() < 0.8
              ? `n${Math.floor(Math.random() * i)}`
              : 'gone',
        ),
      )
      const l = layout(links)
      expect(l.nodes).toHaveLength(n)
      expect(new Set(l.nodes.map(p => `${p.x},${p.y}`)).size).toBe(n)
    }
  })
  it('may be long', () => {
    const links = Array.from({ length: 20_000 }, (_, i) => link(`n${i}`, i > 0 ? `n${i - 1}` : ''))
    expect(layout(links).columns).toBe(20_000)
  })
})
