// Draws a parsed Markdown tree. Texts become text nodes, never HTML.
import { h, type FunctionalComponent, type VNodeChild } from 'vue'
import CodeBlock from './CodeBlock.vue'
import type { Element, Node } from './markdown'

const MarkdownTree: FunctionalComponent<{ nodes: Node[] }> = props => all(props.nodes)
MarkdownTree.props = ['nodes']
export default MarkdownTree

function all(nodes: Node[]): VNodeChild[] {
  return nodes.map(n => (typeof n === 'string' ? n : draw(n)))
}

function draw(e: Element): VNodeChild {
  switch (e.kind) {
    case 'p':
      return h(e.tight ? 'div' : 'p', { class: 'whitespace-pre-wrap' }, all(e.children))
    case 'h':
      return h(
        'p',
        {
          class: ['font-semibold', (e.level ?? 6) < 3 && 'text-[1.1em]'],
          role: 'heading',
          'aria-level': Math.min(6, (e.level ?? 1) + 2),
        },
        all(e.children),
      )
    case 'quote':
      return h('blockquote', { class: 'grid min-w-0 gap-2 border-l-4 border-line pl-3 text-soft' }, all(e.children))
    case 'code':
      return h(CodeBlock, { text: e.text ?? '', lang: e.lang ?? '' })
    case 'list':
      return h(
        e.ordered ? 'ol' : 'ul',
        { class: ['grid min-w-0 gap-1 pl-6', e.ordered ? 'list-decimal' : 'list-disc'], start: e.start },
        all(e.children),
      )
    case 'item':
      return h('li', { class: ['min-w-0', e.checked !== undefined && 'relative list-none'] }, [
        e.checked === undefined
          ? null
          : h('input', {
              type: 'checkbox',
              checked: e.checked,
              disabled: true,
              'aria-label': e.checked ? 'done' : 'to do',
              class: 'absolute top-1 -left-5',
            }),
        h('div', { class: 'grid min-w-0 gap-1' }, all(e.children)),
      ])
    case 'table':
      return h('div', { class: 'max-w-full overflow-x-auto', tabindex: 0, role: 'group', 'aria-label': 'Table' }, [
        h('table', { class: 'border-collapse text-sm' }, all(e.children)),
      ])
    case 'head':
      return h('thead', all(e.children))
    case 'body':
      return h('tbody', all(e.children))
    case 'row':
      return h('tr', all(e.children))
    case 'cell':
      return h(
        e.heading ? 'th' : 'td',
        { scope: e.heading ? 'col' : undefined, class: 'border border-line px-2 py-1 text-left' },
        all(e.children),
      )
    case 'rule':
      return h('hr', { class: 'border-line' })
    case 'strong':
      return h('strong', all(e.children))
    case 'em':
      return h('em', all(e.children))
    case 'strike':
      return h('s', all(e.children))
    case 'span':
      return h('code', { class: 'mono rounded bg-raised px-1 py-0.5' }, e.text)
    case 'link':
      return h(
        'a',
        { class: 'link', href: e.href, target: '_blank', rel: 'noopener noreferrer nofollow' },
        all(e.children),
      )
  }
}
