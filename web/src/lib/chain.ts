/** A chain of causes laid out as a tree: what one link caused stands to its right. */
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
  /** Column from 0, and row from 0. */
  x: number
  y: number
}
export interface Laid {
  nodes: Placed[]
  edges: { from: Placed; to: Placed }[]
  columns: number
  rows: number
}

/** Children stand under each other in the order of their times, a parent beside its first child: no two on one place, no lines that cross. */
export function layout(links: readonly Link[]): Laid {
  const byId = new Map(links.map(l => [l.id, l]))
  const children = new Map<string, Link[]>()
  const roots: Link[] = []
  for (const l of links) {
    // What caused it may be gone, or not be shown.
    if (l.parent && l.parent !== l.id && byId.has(l.parent)) children.set(l.parent, [...(children.get(l.parent) ?? []), l])
    else roots.push(l)
  }
  const nodes: Placed[] = []
  const placed = new Map<string, Placed>()
  const edges: Laid['edges'] = []
  let rows = 0
  let columns = 0
  // Not by recursion: a chain may be long. Each entry is a link and its column.
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
  // A circle has no beginning; the data should hold none, but nothing is left out.
  for (const l of links) if (!placed.has(l.id)) place(l)
  return { nodes, edges, columns, rows }
}
