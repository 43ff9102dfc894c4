import { expect, it } from 'vitest'
import { createApp, h, nextTick, reactive, type App } from 'vue'
import type { Execution } from '@/api/client'
import ExpectEditor from '@/components/ExpectEditor.vue'
import OutcomePanel from '@/components/OutcomePanel.vue'
import { emptyExpect, expectBody, expectForm, expectSummary, schemaError, wrongInExpect } from '@/lib/expect'
import { bodyOf, emptyTrigger, formOf } from '@/lib/trigger'
import { fileOf, wrongIn } from '@/lib/triggerfile'

const full = {
  result_schema: { type: 'object', required: ['verdict'] },
  changes: { min_files: 1, max_files: 5, paths: ['src/**'] },
  command: ['go', 'test', './...'],
  command_timeout_seconds: 60,
  text: { not_empty: true, matches: '(?i)done' },
  published: 'pull_request',
  repair: 2,
}

it('a contract comes back from the form and from the file as it was', () => {
  for (const x of [full, { changes: { none: true } }, { text: { not_empty: true } }, { command: ['true'] }]) {
    expect(expectBody(expectForm(x))).toEqual(x)
    const doc = { name: 'a', backend: 'claude', prompt: 'p', expect: x }
    expect(wrongIn(doc)).toEqual([])
    expect(fileOf(formOf(doc as never))).toEqual(doc)
    expect(bodyOf(formOf(doc as never)).expect).toEqual(x)
  }
  // An agent's trigger has one too.
  expect(bodyOf({ ...emptyTrigger(), agent: 'reviewer', expect: expectForm(full) }).expect).toEqual(full)
})

it('an empty form removes the contract', () => {
  expect(expectBody(emptyExpect())).toBeNull()
  expect(bodyOf(emptyTrigger())).toMatchObject({ expect: null })
  expect(expectBody({ ...emptyExpect(), paths: ['', ' '], command: [''] })).toBeNull()
  // A repair without a clause is sent, and the server refuses it.
  expect(expectBody({ ...emptyExpect(), repair: 1 })).toEqual({ repair: 1 })
  expect(expectSummary(expectForm(full))).toBe('JSON result, changes, command, text, publication, 2 repairs')
  expect(expectSummary(emptyExpect())).toBe('nothing beyond the success of the CLI')
})

it('a schema that is not JSON is kept, shown as wrong, and sent as it is', () => {
  const f = { ...emptyExpect(), result_schema: '{"type": ' }
  expect(schemaError(f.result_schema)).toMatch(/^This is not JSON: /)
  expect(schemaError('[]')).toBe('This must be a JSON object.')
  expect(schemaError(' ')).toBe('')
  expect(expectBody(f)).toEqual({ result_schema: '{"type": ' })
  expect(expectForm({ result_schema: '{"type": ' }).result_schema).toBe('{"type": ')
})

it('what the form cannot hold is reported field by field', () => {
  expect(wrongInExpect('x')).toEqual(['expect must be a map of fields to values.'])
  expect(
    wrongIn({
      expect: {
        repairs: 1,
        command: 'make',
        repair: '2',
        result_schema: 'x',
        changes: { none: 'yes', path: [] },
        text: { matches: 3 },
      },
    }),
  ).toEqual([
    'expect.repairs is not a known field.',
    'expect.command must be a list.',
    'expect.repair must be a number.',
    'expect.result_schema must be a map of fields to values.',
    'expect.changes.path is not a known field.',
    'expect.changes.none must be true or false.',
    'expect.text.matches must be a text.',
  ])
})

function mounted(component: Parameters<typeof createApp>[0], props: Record<string, unknown>): [HTMLElement, App] {
  const el = document.createElement('div')
  document.body.append(el)
  const app = createApp(component, props)
  app.mount(el)
  return [el, app]
}

it('the editor changes the form', async () => {
  const state = reactive({ form: emptyExpect() })
  const props = reactive({
    modelValue: state.form,
    'onUpdate:modelValue': (v: typeof state.form) => (props.modelValue = v),
    agent: true,
    repository: true,
    publish: null,
  })
  const [el, app] = mounted({ render: () => h(ExpectEditor, props) }, {})
  const set = (name: string, value: string) => {
    const input = el.querySelector<HTMLInputElement>(`[data-test="${name}"]`)!
    input.value = value
    input.dispatchEvent(new Event('input', { bubbles: true }))
    return nextTick()
  }
  await set('expect-schema', '{"type"')
  expect(el.querySelector('[data-test="expect-schema-error"]')?.textContent).toMatch(/^This is not JSON/)
  await set('expect-schema', '{"type": "object"}')
  expect(el.querySelector('[data-test="expect-schema-error"]')).toBeNull()
  await set('expect-matches', 'ok')
  await set('expect-min', '1')
  await set('expect-repair', '3')
  expect(expectBody(props.modelValue)).toEqual({
    result_schema: { type: 'object' },
    changes: { min_files: 1 },
    text: { matches: 'ok' },
    repair: 3,
  })
  // A command has no session to repair in, and without a folder there are no changes to expect.
  props.modelValue = emptyExpect()
  props.agent = props.repository = false
  await nextTick()
  expect(el.querySelector('[data-test="expect-repair"]')).toBeNull()
  expect(el.querySelector('[data-test="expect-min"]')).toBeNull()
  app.unmount()
})

it('the page of an execution lists clauses, evidence and earlier attempts', async () => {
  const clause = (name: string, met: boolean, more = {}) => ({ clause: name, met, text: `about ${name}`, ...more })
  const execution = {
    output: { verdict: 'approve' },
    attempts: [
      { number: 1, clauses: [clause('command', false, { evidence: 'FAIL one\u202etwo' })] },
      { number: 2, clauses: [clause('command', true), clause('text.matches', true)] },
      { number: 3 },
    ],
  } as unknown as Execution
  const [el, app] = mounted(OutcomePanel, { execution })
  const rows = () =>
    [...el.querySelectorAll<HTMLElement>('[data-test="clause"]')].map(r => [r.dataset.clause, r.dataset.met])
  expect(el.querySelector('[data-test="outcome-verdict"]')?.textContent).toBe('met')
  expect(rows()).toEqual([
    ['command', 'true'],
    ['text.matches', 'true'],
  ])
  expect(el.querySelector('[data-test="output"]')?.textContent).toContain('"verdict": "approve"')
  const select = el.querySelector<HTMLSelectElement>('[data-test="outcome-attempt"]')!
  select.value = '1'
  select.dispatchEvent(new Event('change'))
  await nextTick()
  expect(el.querySelector('[data-test="outcome-verdict"]')?.textContent).toBe('not met')
  expect(rows()).toEqual([['command', 'false']])
  // Evidence of an unmet clause is open, and cannot change the direction of text.
  expect(el.querySelector('details')?.open).toBe(true)
  expect(el.querySelector('pre')?.textContent).toBe('FAIL one\uFFFDtwo')
  app.unmount()
  const [none, other] = mounted(OutcomePanel, { execution: { attempts: [{ number: 1 }] } })
  expect(none.querySelector('section')).toBeNull()
  other.unmount()
})
