import { mount } from './mount'
import { describe, expect, it } from 'vitest'
import { maxLength, parse, safe, type Node } from '@/conversation/markdown'
import MarkdownTree from '@/conversation/MarkdownTree'

/** outline writes a tree as nested kinds, with texts. */
function outline(nodes: Node[]): string {
  return nodes
    .map(n => {
      if (typeof n === 'string') return JSON.stringify(n)
      const more = [
        n.text !== undefined && JSON.stringify(n.text),
        n.lang,
        n.start !== undefined && String(n.start),
        n.checked !== undefined && (n.checked ? 'x' : 'o'),
        n.href,
      ].filter(Boolean)
      return `${n.kind}${more.length ? `=${more.join(' ')}` : ''}${n.children.length ? `(${outline(n.children)})` : ''}`
    })
    .join(' ')
}

function plainText(nodes: Node[]): string {
  return nodes.map(n => (typeof n === 'string' ? n : (n.text ?? '') + plainText(n.children))).join('')
}

describe('Markdown', () => {
  const cases: Record<string, [source: string, tree: string]> = {
    'code in bold': ['**`npm i` now**', 'p(strong(span="npm i" " now"))'],
    'code in a link': ['[`main.go`](https://e.example/a)', 'p(link=https://e.example/a(span="main.go"))'],
    'fenced code in an item': ['1. Run\n\n    ```sh\n    npm i\n    ```\n', 'list=1(item(p("Run") code="npm i" sh))'],
    'numbers in bullets': [
      '- a\n  1. b\n  2. c\n\n3. d',
      'list(item(p("a") list=1(item(p("b")) item(p("c"))))) list=3(item(p("d")))',
    ],
    'task list': [
      '- [x] done\n- [ ] open\n- [y] text',
      'list(item=x(p("done")) item=o(p("open")) item(p("[y] text")))',
    ],
    strikethrough: ['~~old~~ new', 'p(strike("old") " new")'],
    escapes: ['\\*not\\* \\`em\\`', 'p("*not* `em`")'],
    'bold and emphasis': ['***both***', 'p(em(strong("both")))'],
    'pipe in code of a table': [
      'a|b\n-|-\n`x|y`|2',
      'table(head(row(cell("a") cell("b"))) body(row(cell(span="x|y") cell("2"))))',
    ],
    'escaped pipe in a table': [
      'a|b\n-|-\n`x\\|y` \\| z|2',
      'table(head(row(cell("a") cell("b"))) body(row(cell(span="x|y" " | z") cell("2"))))',
    ],
    'list in a quote': ['> - a\n> - b', 'quote(list(item(p("a")) item(p("b"))))'],
    'address with parentheses': [
      'see https://e.example/A_(b)).',
      'p("see " link=https://e.example/A_(b)("https://e.example/A_(b)") ").")',
    ],
    'link with parentheses': ['[x](https://e.example/A_(b))', 'p(link=https://e.example/A_(b)("x"))'],
    'code that is still written': ['see:\n```go\nfunc', 'p("see:") code="func" go'],
    'headings and rules': ['# A\n---\nb\nc', 'h("A") rule p("b\\nc")'],
    'words with underscores': ['snake_case_name', 'p("snake_case_name")'],
    'nested quote': ['> a\n>> b', 'quote(p("a") quote(p("b")))'],
    image: ['![a cat](https://e.example/c.png)', 'p(link=https://e.example/c.png("a cat"))'],
    HTML: ['<b onclick="x">hi</b> <script>y</script>', 'p("<b onclick=\\"x\\">hi</b> <script>y</script>")'],
    'block of HTML': ['<div>\n<img src=x onerror=y>\n</div>', 'p("<div>\\n<img src=x onerror=y>\\n</div>")'],
  }
  for (const [name, [source, tree]] of Object.entries(cases))
    it(name.replaceAll(' ', '_'), () => expect(outline(parse(source))).toBe(tree))

  it('links_only_to_web_and_mail', () => {
    for (const bad of [
      'javascript:alert(1)',
      'data:text/html,x',
      ' javascript:x',
      'JaVaScRiPt:x',
      '//x',
      'vbscript:x',
      'file:///x',
      'blob:x',
      '/local',
      'java\nscript:x',
    ]) {
      expect(safe(bad)).toBe('')
      for (const source of [`[x](${bad})`, `[x](<${bad}>)`, `<${bad}>`, `![x](${bad})`, `[x]\n\n[x]: ${bad}`])
        expect(outline(parse(source)), source).not.toContain('link=')
    }
    expect(safe('mailto:a@e.example')).toBe('mailto:a@e.example')
  })

  it('is_drawn_as_text_nodes', () => {
    const el = mount(MarkdownTree, {
      nodes: parse(
        '<img src=x onerror=y> **b** [l](https://e.example/) `<i>`\n\n- [x] t\n\n```\n<s>\n```\n\na|b\n-|-\n1|2',
      ),
    })
    expect(el.querySelector('img, i, s, script')).toBeNull()
    expect(el.querySelector('strong')!.textContent).toBe('b')
    const a = el.querySelector('a')!
    expect([a.getAttribute('href'), a.getAttribute('rel')]).toEqual([
      'https://e.example/',
      'noopener noreferrer nofollow',
    ])
    expect(el.querySelector('input')!.disabled).toBe(true)
    expect(el.querySelectorAll('td')).toHaveLength(2)
    expect(el.querySelector('pre')!.textContent).toBe('<s>')
  })
})

// Work is counted as characters looked at, so that a slow machine fails no test.
function work(source: string): number {
  const one = String.prototype.charCodeAt
  let n = 0
  String.prototype.charCodeAt = function (at: number) {
    n++
    return one.call(this, at)
  }
  try {
    parse(source)
  } finally {
    String.prototype.charCodeAt = one
  }
  return n
}

describe('Markdown of hostile texts', () => {
  const make: Record<string, (n: number) => string> = {
    'blanks in a heading': n => `# a${' '.repeat(n)}b`,
    'blanks in a line': n => `a${' '.repeat(n)}b`,
    'backtick runs of all lengths': n =>
      Array.from({ length: Math.sqrt(2 * n) }, (_, i) => '`'.repeat(i + 1)).join(' '),
    backticks: n => '`'.repeat(n),
    'code spans': n => '`a'.repeat(n / 2),
    'open brackets': n => '['.repeat(n),
    'open images': n => '!['.repeat(n / 2),
    'open links': n => '[a]('.repeat(n / 4),
    'brackets closed': n => '['.repeat(n / 2) + ']'.repeat(n / 2),
    stars: n => '*'.repeat(n),
    'bold starts': n => '**a '.repeat(n / 4),
    'mixed emphasis': n => '*a_ '.repeat(n / 4),
    'emphasis in pairs': n => '_a_'.repeat(n / 3),
    tildes: n => '~~a '.repeat(n / 4),
    quotes: n => '>'.repeat(n),
    'quote lines': n => '> a\n'.repeat(n / 4),
    'nested lists': n => '- '.repeat(n / 2),
    'lists deeper and deeper': n => Array.from({ length: Math.sqrt(n) }, (_, i) => `${' '.repeat(i)}- a`).join('\n'),
    addresses: n => 'https://a.example '.repeat(n / 18),
    'parts of an address': n => 'http://'.repeat(n / 7),
    'angle brackets': n => '<'.repeat(n),
    ampersands: n => '&'.repeat(n),
    backslashes: n => '\\'.repeat(n),
    pipes: n => `${'|'.repeat(n / 3)}\n${'-|'.repeat(n / 3)}`,
    'table of code': n => `a|b\n-|-\n${'`|'.repeat(n / 2)}`,
    'tables rows': n => `a|b\n-|-\n${'|\n'.repeat(n / 2)}`,
    references: n => '[a]: b\n'.repeat(n / 7),
    'definitions half': n => `[a]: ${'('.repeat(n)}`,
    'blank lines': n => '\n'.repeat(n),
    fences: n => '```\n'.repeat(n / 4),
  }
  for (const [name, of] of Object.entries(make)) {
    it(name.replaceAll(' ', '_'), () => {
      const small = work(of(2000))
      const large = work(of(16_000))
      // Eight times the text is eight times the work; some is allowed for tables of offsets.
      expect(large).toBeLessThan(12 * small + 64_000)
      expect(large).toBeLessThan(150 * 16_000)
    })
  }
  it('nothing_is_lost', () => {
    for (const name of ['open brackets', 'stars', 'quotes', 'nested lists', 'angle brackets']) {
      const source = `${make[name]!(5000)} end`
      expect(plainText(parse(source)), name).toContain('end')
    }
    expect(plainText(parse('a'.repeat(maxLength + 1)))).toHaveLength(maxLength + 1)
  })
})
