import { describe, expect, it } from 'vitest'
import { checkTemplate, fieldsOf, nearest, typedBefore, varsOf } from '@/lib/prompt'
import { errorsOf } from '@/lib/errors'
import { bodyOf, emptySchedule, emptyTrigger, emptyWebhook, formOf, withIds, type Trigger } from '@/lib/trigger'
import { fileOf, wrongIn } from '@/lib/triggerfile'

const names = ['message', 'branch', 'pr_url', 'payload']

describe('placeholders', () => {
  it('are names in braces, and other braces are text', () => {
    expect(fieldsOf('{message} {"a": 1} {{branch}} {1} {} {vars.x.y} ${HOME}').map(f => [f.name, f.literal])).toEqual([
      ['message', false],
      ['branch', true],
      ['vars.x.y', false],
      ['HOME', false],
    ])
  })
  it('without a value are reported with the most similar name', () => {
    expect(checkTemplate('{mesage} {vars.a} {vars.} {{anything}} {message}', names).map(w => [w.name, w.near])).toEqual(
      [
        ['mesage', 'message'],
        ['vars.', ''],
      ],
    )
    expect(nearest('zzzzzz', names)).toBe('')
  })
  it('of a caller are listed once', () => {
    expect(varsOf('{vars.a} {vars.b} {vars.a} {{vars.c}}')).toEqual(['a', 'b'])
  })
  it('are offered while one is typed', () => {
    expect(typedBefore('Look at {br', 11)).toEqual({ start: 8, part: 'br' })
    expect(typedBefore('Look at {', 9)).toEqual({ start: 8, part: '' })
    expect(typedBefore('Look at {{br', 12)).toBeUndefined()
    expect(typedBefore('Look at {branch} ', 17)).toBeUndefined()
  })
})

describe('a trigger', () => {
  it('of a command resets what is an agent’s', () => {
    const b = bodyOf({ ...emptyTrigger(), name: ' a ', backend: 'command', command: ['true'], model: 'x', prompt: 'y' })
    expect(b).toMatchObject({ name: 'a', command: ['true'], model: null, permission: null, args: null, prompt: null })
    expect(bodyOf({ ...emptyTrigger(), backend: 'command' }, { backend: 'command' } as Trigger)).not.toHaveProperty(
      'prompt',
    )
  })
  it('of an agent resets what is a command’s', () => {
    expect(bodyOf({ ...emptyTrigger(), backend: 'codex', prompt: 'p' })).toMatchObject({
      command: null,
      tty: null,
      prompt: 'p',
      permission: 'edit',
    })
  })
  it('keeps values that are not shown', () => {
    const f = formOf({ name: 'a', backend: 'command', command: ['true'], env: { A: '***', B: null, C: 'c' } })
    expect(f.env.map(e => e.mode)).toEqual(['keep', 'pass', 'value'])
    expect(bodyOf(f).env).toEqual({ A: '***', B: null, C: 'c' })
    const g = formOf({
      name: 'a',
      backend: 'command',
      command: ['true'],
      env: { A: { value: '/usr/bin', secret: false }, B: { value: 'b', secret: true }, C: 'c' },
    })
    expect(g.env.map(e => [e.mode, e.value, e.secret])).toEqual([
      ['value', '/usr/bin', false],
      ['value', 'b', true],
      ['value', 'c', true],
    ])
    expect(bodyOf(g).env).toEqual({ A: { value: '/usr/bin', secret: false }, B: 'b', C: 'c' })
  })
  it('comes back from its file as it was', () => {
    const f = {
      ...emptyTrigger(),
      name: 'a',
      backend: 'claude',
      prompt: 'Look {branch}',
      permission: 'read',
      env: [{ name: 'A', mode: 'pass' as const, value: '', secret: true }],
      schedules: [{ ...emptySchedule(), cron: '30 2 * * *', zone: 'Europe/Berlin' }],
      webhooks: [{ ...emptyWebhook('github'), match: { events: ['push'], labels: [] } }],
    }
    const doc = fileOf(f)
    expect(doc).toEqual({
      name: 'a',
      backend: 'claude',
      prompt: 'Look {branch}',
      permission: 'read',
      env: { A: null },
      schedules: [{ cron: '30 2 * * *', zone: 'Europe/Berlin' }],
      webhooks: [{ source: 'github', match: { events: ['push'] } }],
    })
    expect(wrongIn(doc)).toEqual([])
    expect(fileOf(formOf(doc as never))).toEqual(doc)
  })
  it('leaves out an overlap rule that is the default of its missed runs', () => {
    const f = formOf({
      schedules: [
        { cron: '@daily', overlap: 'skip' },
        { cron: '@daily', missed: 'all', overlap: 'queue' },
        { cron: '@daily', missed: 'all', overlap: 'skip' },
      ],
    })
    expect(f.schedules.map(s => s.overlap)).toEqual(['', '', 'skip'])
  })
  it('that a form cannot hold is reported field by field', () => {
    expect(wrongIn('x')).toHaveLength(1)
    expect(
      wrongIn({ name: 'a', promt: 'x', paths: '/srv', timeout_seconds: '1h', schedules: [{ crn: '' }, 3] }),
    ).toEqual([
      'promt is not a known field.',
      'paths must be a list.',
      'timeout_seconds must be a number.',
      'schedules.0.crn is not a known field.',
      'schedules.1 must be a map of fields to values.',
    ])
  })
  it('from a file keeps the ids and secrets of what stands at the same place', () => {
    const before = {
      ...emptyTrigger(),
      schedules: [{ ...emptySchedule(), id: 'sch-1' }],
      webhooks: [{ ...emptyWebhook('webhook'), id: 'whk-1', secret: '***' }],
    }
    const after = withIds(
      {
        ...emptyTrigger(),
        schedules: [{ ...emptySchedule(), kind: 'every' }],
        webhooks: [emptyWebhook('webhook'), emptyWebhook('webhook')],
      },
      before,
    )
    expect(after.schedules.map(s => s.id)).toEqual([''])
    expect(after.webhooks.map(w => [w.id, w.secret])).toEqual([
      ['whk-1', '***'],
      ['', ''],
    ])
  })
  it('shows each refusal at its field', () => {
    expect(
      errorsOf([
        { location: 'body.schedules[0].cron', message: 'a' },
        { location: 'body.prompt', message: 'b' },
        { location: 'body.prompt', message: 'c' },
      ]),
    ).toEqual({ 'schedules.0.cron': 'a', prompt: 'b; c' })
  })
})

describe('what a trigger runs on', () => {
  it('is its agent’s when it names one: the rest is reset', () => {
    const b = bodyOf({ ...emptyTrigger(), name: 'a', agent: 'reviewer', model: 'x', prompt: 'p' })
    expect(b).toMatchObject({
      agent: 'reviewer',
      prompt: 'p',
      backend: null,
      model: null,
      permission: null,
      env: null,
      workspace: null,
      fallback: null,
    })
    expect(fileOf({ ...emptyTrigger(), name: 'a', agent: 'reviewer' })).toEqual({ name: 'a', agent: 'reviewer' })
  })
  it('comes back from its file: account, fallback, retry, workspace, ceiling, messages', () => {
    const doc = {
      name: 'a',
      backend: 'claude',
      prompt: 'p',
      account: 'acc-1',
      fallback: [{ backend: 'codex', model: 'm' }, { backend: 'claude' }],
      workspace: { repository: 'https://git.example/r.git', base: 'main', paths: ['a'] },
      ceiling_usd: 2.5,
      retry: { on_failure: true, max_attempts: 3 },
      messages: [
        { to: 'topic:x', types: ['alert'] },
        { to: 'reviewer', enabled: false },
      ],
      notify: { failed: ['team'], other: [] },
    }
    expect(wrongIn(doc)).toEqual([])
    expect(wrongIn({ ...doc, notify: { failed: 'team' } })).toEqual(['notify.failed must be a list of channels.'])
    expect(fileOf(formOf(doc as never))).toEqual(doc)
    expect(bodyOf(formOf(doc as never))).toMatchObject({ ...doc, agent: null })
  })
  it('is reported where the form cannot hold it', () => {
    expect(wrongIn({ retry: 3, workspace: { repo: 'x' }, fallback: ['codex'], messages: [{ for: 'x' }] })).toEqual([
      'retry must be a map of fields to values.',
      'workspace.repo is not a known field.',
      'messages.0.for is not a known field.',
      'fallback.0 must be a map of fields to values.',
    ])
  })
})

describe('named secrets', () => {
  it('of variables and workspaces stay references in the form and in the file', () => {
    const form = formOf({
      name: 'x',
      backend: 'command',
      command: ['true'],
      env: { TOKEN: { secret: 'forge' }, DIR: { value: '/srv', secret: false } },
      workspace: { repository: 'https://git.example/r.git', credential: { secret: 'forge' } },
    })
    expect(form.env[0]).toEqual({ name: 'TOKEN', mode: 'named', value: 'forge', secret: true })
    for (const body of [bodyOf(form), fileOf(form)]) {
      expect(body.env).toEqual({ TOKEN: { secret: 'forge' }, DIR: { value: '/srv', secret: false } })
      expect(body.workspace).toEqual({ repository: 'https://git.example/r.git', credential: { secret: 'forge' } })
    }
  })
})
