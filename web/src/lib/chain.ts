/** A chain of causes laid out as a tree: effects are to the right of their cause. */
export interface Link {
  kind: string
  id: string
  parent: string
  depth: number
  title: string
  status?: string
  created_at: string
}
export interface Placed {
  link: Link
  /** Column and row, from 0. */
  x: number
  y: number
}
export interface Laid {
  nodes: Placed[]
  edges: { from: Placed; to: Placed }[]
  columns: number
  rows: number
}

/** Places children below each other by time, and a parent next to its first child, so that no lines cross. */
export function layout(links: readonly Link[]): Laid {
  const byId = new Map(links.map(l => [l.id, l]))
  const children = new Map<string, Link[]>()
  const roots: Link[] = []
  for (const l of links) {
    // The cause may have been removed, or may not be shown.
    if (l.parent && l.parent !== l.id && byId.has(l.parent))
      children.set(l.parent, [...(children.get(l.parent) ?? []), l])
    else roots.push(l)
  }
  const nodes: Placed[] = []
  const placed = new Map<string, Placed>()
  const edges: Laid['edges'] = []
  let rows = 0
  let columns = 0
  // Iterative, because a chain may be long. Each entry is a link and its column.
  const place = (start: Link) => {
    const stack: { link: Link; x: number; first: boolean }[] = [{ link: start, x: 0, first: true }]
    while (stack.length > 0) {
      const { link, x, first } = stack.pop()!
      if (placed.has(link.id)) continue
      const parent = placed.get(link.parent)
      const y = first && parent ? parent.y : rows++
      const node = { link, x, y }
      placed.set(link.id, node)
      nodes.push(node)
      columns = Math.max(columns, x + 1)
      if (parent) edges.push({ from: parent, to: node })
      const list = children.get(link.id) ?? []
      for (let i = list.length - 1; i >= 0; i--) stack.push({ link: list[i]!, x: x + 1, first: i === 0 })
    }
  }
  for (const r of roots) place(r)
  // Cycles have no root. The data should have none; show them anyway.
  for (const l of links) if (!placed.has(l.id)) place(l)
  return { nodes, edges, columns, rows }
}
