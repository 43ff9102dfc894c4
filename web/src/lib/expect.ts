import type { Schemas } from '@/api/client'

/** The outcome contract of a trigger as a form. Empty fields expect nothing. */
export interface ExpectForm {
  /** JSON Schema, as text. */
  result_schema: string
  none: boolean
  min_files: number
  max_files: number
  paths: string[]
  command: string[]
  /** 0: the default of the server. */
  command_timeout_seconds: number
  not_empty: boolean
  matches: string
  /** Kind of publication; empty: none. */
  published: string
  repair: number
}

export const emptyExpect = (): ExpectForm => ({
  result_schema: '',
  none: false,
  min_files: 0,
  max_files: 0,
  paths: [],
  command: [],
  command_timeout_seconds: 0,
  not_empty: false,
  matches: '',
  published: '',
  repair: 0,
})

const texts = (v: unknown): string[] => (Array.isArray(v) ? v.map(String) : [])
const number = (v: unknown): number => (typeof v === 'number' ? v : 0)

function schemaText(v: unknown): string {
  if (v === undefined || v === null) return ''
  return typeof v === 'string' ? v : JSON.stringify(v, null, 2)
}

/** Converts a contract of the API, or of a file, to a form. */
export function expectForm(x: Schemas['Expect'] | null | undefined): ExpectForm {
  const text = x?.text
  return {
    result_schema: schemaText(x?.result_schema),
    none: x?.changes?.none === true,
    min_files: number(x?.changes?.min_files),
    max_files: number(x?.changes?.max_files),
    paths: texts(x?.changes?.paths),
    command: texts(x?.command),
    command_timeout_seconds: number(x?.command_timeout_seconds),
    not_empty: text?.not_empty === true,
    matches: typeof text?.matches === 'string' ? text.matches : '',
    published: typeof x?.published === 'string' ? x.published : '',
    repair: number(x?.repair),
  }
}

/** Why the text is not a JSON Schema; empty: it may be one. */
export function schemaError(text: string): string {
  if (!text.trim()) return ''
  try {
    const v: unknown = JSON.parse(text)
    return typeof v === 'object' && v !== null && !Array.isArray(v) ? '' : 'This must be a JSON object.'
  } catch (err) {
    return `This is not JSON: ${err instanceof Error ? err.message : String(err)}`
  }
}

/** The schema as a value. Text that is not JSON is sent as it is, and refused by the server. */
function schemaValue(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}

/** Converts a form to a contract of the API; null: nothing is expected. */
export function expectBody(f: ExpectForm): Schemas['Expect'] | null {
  const paths = f.paths.map(p => p.trim()).filter(Boolean)
  const command = f.command.some(Boolean) ? f.command : []
  const changes: Schemas['ExpectedChanges'] = {
    ...(f.none && { none: true }),
    ...(f.min_files !== 0 && { min_files: f.min_files }),
    ...(f.max_files !== 0 && { max_files: f.max_files }),
    ...(paths.length > 0 && { paths }),
  }
  const text: Schemas['ExpectedText'] = {
    ...(f.not_empty && { not_empty: true }),
    ...(f.matches && { matches: f.matches }),
  }
  const clauses: Schemas['Expect'] = {
    ...(f.result_schema.trim() && { result_schema: schemaValue(f.result_schema) }),
    ...(Object.keys(changes).length > 0 && { changes }),
    ...(command.length > 0 && { command }),
    ...(Object.keys(text).length > 0 && { text }),
    ...(f.published && { published: f.published }),
  }
  const body: Schemas['Expect'] = {
    ...clauses,
    ...(f.command_timeout_seconds !== 0 && { command_timeout_seconds: f.command_timeout_seconds }),
    ...(f.repair !== 0 && { repair: f.repair }),
  }
  return Object.keys(body).length > 0 ? body : null
}

/** The clauses of a form in a few words. */
export function expectSummary(f: ExpectForm): string {
  const x = expectBody(f)
  if (!x) return 'nothing beyond the success of the CLI'
  const parts = [
    x.result_schema !== undefined && 'JSON result',
    x.changes && 'changes',
    x.command && 'command',
    x.text && 'text',
    x.published && 'publication',
    f.repair > 0 && (f.repair === 1 ? '1 repair' : `${f.repair} repairs`),
  ].filter(Boolean)
  return parts.join(', ')
}

const fields = {
  expect: ['result_schema', 'changes', 'command', 'command_timeout_seconds', 'text', 'published', 'repair'],
  changes: ['none', 'min_files', 'max_files', 'paths'],
  text: ['not_empty', 'matches'],
}

/** Lists the reasons why the form cannot hold the contract of a file. */
export function wrongInExpect(x: unknown): string[] {
  if (x === undefined || x === null) return []
  const object = (v: unknown): v is Record<string, unknown> => typeof v === 'object' && v !== null && !Array.isArray(v)
  if (!object(x)) return ['expect must be a map of fields to values.']
  const bad: string[] = []
  const names = (v: Record<string, unknown>, list: string[], at: string) => {
    for (const k of Object.keys(v)) if (!list.includes(k)) bad.push(`${at}${k} is not a known field.`)
  }
  const typed = (v: Record<string, unknown>, at: string, kind: string, ok: (v: unknown) => boolean, list: string[]) => {
    for (const k of list) if (v[k] !== undefined && v[k] !== null && !ok(v[k])) bad.push(`${at}${k} must be ${kind}.`)
  }
  const isNumber = (v: unknown) => typeof v === 'number'
  const isFlag = (v: unknown) => typeof v === 'boolean'
  names(x, fields.expect, 'expect.')
  typed(x, 'expect.', 'a list', Array.isArray, ['command'])
  typed(x, 'expect.', 'a number', isNumber, ['command_timeout_seconds', 'repair'])
  typed(x, 'expect.', 'a map of fields to values', object, ['changes', 'text', 'result_schema'])
  typed(x, 'expect.', 'a text', v => typeof v === 'string', ['published'])
  if (object(x.changes)) {
    names(x.changes, fields.changes, 'expect.changes.')
    typed(x.changes, 'expect.changes.', 'true or false', isFlag, ['none'])
    typed(x.changes, 'expect.changes.', 'a number', isNumber, ['min_files', 'max_files'])
    typed(x.changes, 'expect.changes.', 'a list', Array.isArray, ['paths'])
  }
  if (object(x.text)) {
    names(x.text, fields.text, 'expect.text.')
    typed(x.text, 'expect.text.', 'true or false', isFlag, ['not_empty'])
    typed(x.text, 'expect.text.', 'a text', v => typeof v === 'string', ['matches'])
  }
  return bad
}
