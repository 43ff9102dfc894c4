import { expect, test } from 'vitest'
import { ApiError } from '@/api/client'
import { changedFields, conflict, fieldsOf, update } from '@/editing/conflict'

test('only changed fields are sent', () => {
  expect(changedFields({ a: 1, b: ['x'], c: null }, { a: 1, b: ['y'], c: null, d: 2 })).toEqual({ b: ['y'], d: 2 })
  expect(changedFields({ a: null }, { a: undefined })).toEqual({})
})

test('fields that both sides changed come first, secrets are hidden', () => {
  const f = fieldsOf(
    { prompt: 'old', permission: 'edit', env: { K: '***' } },
    { prompt: 'theirs', permission: 'read', env: { K: '***' } },
    { permission: 'full', env: { K: 'a-secret-value' } },
  )
  expect(f.map(x => [x.name, x.both])).toEqual([
    ['permission', true],
    ['prompt', false],
    ['env', false],
  ])
  expect(JSON.stringify(f)).not.toContain('a-secret-value')
  expect(f[1]).toMatchObject({ theirs: 'theirs', mine: 'old' })
})

interface Thing {
  name: string
  etag: string
  prompt: string
  permission: string
}
function save(choice: 'keep' | 'theirs' | undefined, stored: Thing) {
  const sent: unknown[] = []
  const done = update<Thing, { prompt: string; permission: string }>({
    noun: 'trigger',
    base: { name: 'a', etag: '1', prompt: 'p', permission: 'edit' },
    body: { prompt: 'p', permission: 'full' },
    bodyOf: t => ({ prompt: t.prompt, permission: t.permission }),
    send: (body, headers) => {
      sent.push([body, headers['If-Match']])
      if (headers['If-Match'] !== `"${stored.etag}"`)
        return Promise.reject(new ApiError('changed', 412, [], { ...stored }))
      return Promise.resolve({ ...stored, ...body, etag: '3' })
    },
  })
  const timer = setInterval(() => conflict.now?.answer(choice), 1)
  return done.then(now => ({ now, sent })).finally(() => clearInterval(timer))
}
const theirs: Thing = { name: 'a', etag: '2', prompt: 'theirs', permission: 'edit' }

test('keep mine stores only my fields over the newer version', async () => {
  const { now, sent } = await save('keep', theirs)
  expect(sent).toEqual([
    [{ permission: 'full' }, '"1"'],
    [{ permission: 'full' }, '"2"'],
  ])
  expect(now).toMatchObject({ prompt: 'theirs', permission: 'full' })
})
test('take theirs stores nothing', async () => {
  const { now, sent } = await save('theirs', theirs)
  expect(sent).toHaveLength(1)
  expect(now).toMatchObject({ prompt: 'theirs', permission: 'edit' })
})
test('decide later keeps the form', async () => expect((await save(undefined, theirs)).now).toBeUndefined())
