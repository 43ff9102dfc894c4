import { api, type Schemas } from '@/api/client'

export type Example = Schemas['ExampleView']

let list: Promise<Example[]> | undefined

/** Returns the example triggers of the server. They are fetched once. */
export function loadExamples(): Promise<Example[]> {
  list ??= api.GET('/api/v1/examples').then(({ data }) => data?.items ?? [])
  list.catch(() => (list = undefined))
  return list
}

/** Returns the comment at the top of an example file, without its first line, the summary. */
export function notesOf(e: Example): string {
  const lines = e.yaml.split('\n')
  const end = lines.findIndex(l => !l.startsWith('#'))
  return lines
    .slice(1, Math.max(1, end))
    .map(l => l.replace(/^#\s*/, ''))
    .join(' ')
}
