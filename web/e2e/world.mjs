// A server with data of every kind, for the tests of all pages and the screenshots.
import { join } from 'node:path'
import { until } from './server.mjs'

export const command = (script, more = {}) => ({ backend: 'command', command: ['sh', '-c', script], ...more })

const sample = file =>
  join(process.cwd(), '..', 'internal', 'agentcli', file.split('-')[0], 'testdata', 'samples', file)

/** A stand-in that replays the recorded output of a real CLI line by line. */
export const standIn = (version, file, pace = 0.05, code = 0) => `#!/bin/sh
case "$*" in *--version*) echo '${version}'; exit 0;; esac
cat >/dev/null
while IFS= read -r line || [ -n "$line" ]; do printf '%s\\n' "$line"; sleep ${pace}; done <'${sample(file)}'
exit ${code}
`

export const tools = {
  claude: standIn('2.1.330 (Claude Code)', 'claude-tool-full.out'),
  codex: standIn('codex-cli 0.80.0', 'codex-401.out', 0.05, 1),
}

/** Fills a server and returns the ids of its objects. */
export async function fill(server) {
  const api = (path, body) => server.api('POST', path, body)
  const secret = 'a-long-and-random-secret'
  const hook = await api('/api/v1/triggers', {
    name: 'Alerts',
    ...command('echo "alert received"; echo "looking at the last deploy"; sleep 0.2; echo "nothing to do"'),
    webhooks: [
      {
        source: 'webhook',
        auth: { kind: 'bearer' },
        secret,
        match: { conditions: { all: [{ field: 'level', op: 'equals', value: 'error' }] } },
      },
    ],
  })
  const agent = await api('/api/v1/triggers', {
    name: 'A review with quite a long name, as people have them',
    backend: 'claude',
    prompt: 'Review {branch}.\n\n{message}\n\nSay what is wrong, and where.',
    permission: 'read',
    env: { A_TOKEN: 'x', HOME: null },
    schedules: [{ cron: '30 2 * * *', zone: 'Europe/Berlin' }, { every: '6h' }],
    webhooks: [{ source: 'github', secret, match: { events: ['pull_request.opened', 'pull_request.synchronize'] } }],
  })
  const nightly = await api('/api/v1/triggers', {
    name: 'Nightly tests',
    ...command(
      'for i in $(seq 1 40); do printf "\\033[32mok\\033[0m   package/%s %s.%ss\\n" $i 0 $i; done; printf "\\033[31mFAIL\\033[0m package/41\\n" >&2; exit 1',
    ),
    schedules: [{ cron: '15 3 * * 1-5', zone: 'America/New_York' }],
  })
  const often = await api('/api/v1/triggers', {
    name: 'Heartbeat',
    ...command('date; echo all well'),
    schedules: [{ every: '2s' }],
  })
  await api('/api/v1/triggers', {
    name: 'Release notes',
    backend: 'codex',
    prompt: 'Write the notes of {vars.version}.',
    enabled: false,
  })
  const call = body =>
    fetch(`${server.url}${hook.webhook_url}`, {
      method: 'POST',
      body,
      headers: { 'Content-Type': 'application/json', Authorization: `Bearer ${secret}` },
    })
  const first = await (await call('{"level":"error","text":"disk is full"}')).json()
  await call('{"level":"info","text":"all good"}')
  await fetch(`${server.url}${hook.webhook_url}`, { method: 'POST', body: '{}' })
  const test = await api(`/api/v1/triggers/${agent.id}/webhooks/${agent.webhooks[0].id}/test`)
  await until(
    'a schedule has fired',
    async () => (await server.api('GET', `/api/v1/ticks?trigger_id=${often.id}`)).items.length > 1,
  )
  await server.api('PATCH', `/api/v1/triggers/${often.id}`, { schedules: [{ every: '30m' }] })
  const failed = (await api(`/api/v1/triggers/${nightly.id}/run`)).execution_id
  const reviewed = (await api(`/api/v1/triggers/${agent.id}/run`, { message: 'Please look at the new parser.' }))
    .execution_id
  const colours = await server.run(
    'Colours',
    `printf '\\033[31mred\\033[32m green\\033[33m yellow\\033[34m blue\\033[35m magenta\\033[36m cyan\\033[37m white\\033[90m grey\\033[0m\\n'; echo err >&2; seq 1 100; exit 3`,
  )
  const running = await server.run(
    'Migration',
    'i=0; while [ $i -lt 9000 ]; do i=$((i+1)); echo "row block $i of 9000 copied"; sleep 0.4; done',
  )
  const slow = await server.run('Too slow', 'echo waiting; sleep 60', { timeout_seconds: 1 })
  for (const id of [failed, reviewed, colours, slow, first.execution_ids[0]]) await server.ended(id)
  const alerts = await server.api('GET', `/api/v1/deliveries/${first.delivery_id}`)
  await api('/api/v1/auth/keys', { name: 'ci', role: 'operator' })
  const talk = await fillTalk(server)
  return {
    ...talk,
    hook,
    agent,
    nightly,
    often,
    failed,
    reviewed,
    colours,
    running,
    slow,
    delivery: alerts.id,
    tested: test.delivery_id,
  }
}

/** Creates agents, conversations, accounts and budgets. */
async function fillTalk(server) {
  const api = (path, body) => server.api('POST', path, body)
  const account = await api('/api/v1/accounts', {
    backend: 'claude',
    name: 'team',
    credentials: { ANTHROPIC_API_KEY: `sk-ant-${'x'.repeat(40)}` },
    max_concurrent: 2,
    order: 1,
  })
  await api('/api/v1/budgets', { name: 'All of a month', limit_usd: 100 })
  await api('/api/v1/budgets', {
    name: 'Nearly nothing',
    limit_usd: 0.01,
    period: 'day',
    scope: 'account',
    target: account.id,
  })
  const reviewer = await api('/api/v1/agents', {
    name: 'reviewer',
    backend: 'claude',
    account: account.id,
    role: 'reviews what others write',
    goals: 'Be brief, and kind.',
    fallback: [{ backend: 'codex' }],
    env: { A_TOKEN: 'x' },
    ceiling_usd: 5,
  })
  await api('/api/v1/agents', { name: 'writer', backend: 'codex', enabled: false })
  await api('/api/v1/members', { list: 'topic:releases', member: 'agent:reviewer' })
  await api('/api/v1/members', { list: 'group:authors', member: 'agent:writer' })
  await api('/api/v1/triggers', {
    name: 'On a release',
    agent: 'reviewer',
    messages: [{ to: 'topic:releases', types: ['alert'] }],
    retry: { on_failure: true },
  })
  const sent = await api('/api/v1/messages', {
    to: 'topic:releases',
    type: 'alert',
    priority: 'high',
    subject: 'Version 1.2 is out',
    body: 'Look at **what changed**:\n\n- the parser\n- `docs/`\n',
  })
  await api('/api/v1/messages', {
    to: 'agent:reviewer',
    type: 'request',
    body: 'And at this.',
    reply_to: sent.message.id,
  })
  const conversation = await api('/api/v1/conversations', {
    agent: 'reviewer',
    title: 'The new parser',
    message:
      'Please look at the new parser, and say:\n\n1. what is **wrong**,\n2. where.\n\n```go\nfunc parse(b []byte) error {\n```',
  })
  await until(
    'the turn has ended',
    async () =>
      (await server.api('GET', `/api/v1/conversations/${conversation.id}/events?limit=1000`)).events.some(
        e => e.event === 'finish',
      ),
    60_000,
  )
  for (const id of sent.execution_ids) await server.ended(id)
  return { account: account.id, reviewer: reviewer.id, conversation: conversation.id, message: sent.message.id }
}

/** Returns the path of every page, by the name of its screenshot. */
export function pages(w) {
  return {
    overview: '/',
    executions: '/executions',
    'execution-log': `/executions/${w.colours}#L2`,
    'execution-failed': `/executions/${w.failed}`,
    'execution-agent': `/executions/${w.reviewed}`,
    'execution-result': `/executions/${w.reviewed}?tab=result`,
    'execution-prompt': `/executions/${w.reviewed}?tab=prompt`,
    'execution-attempts': `/executions/${w.reviewed}?tab=attempts`,
    'execution-running': `/executions/${w.running}`,
    triggers: '/triggers',
    'trigger-agent': `/triggers/${w.agent.id}`,
    'trigger-webhook': `/triggers/${w.hook.id}`,
    'trigger-schedule': `/triggers/${w.nightly.id}`,
    'trigger-new': '/triggers/new',
    deliveries: '/deliveries',
    delivery: `/deliveries/${w.delivery}`,
    'delivery-test': `/deliveries/${w.tested}`,
    'schedule-week': '/schedule',
    'schedule-all': '/schedule?view=all',
    'schedule-ledger': '/schedule?view=ledger',
    conversations: '/conversations',
    conversation: `/conversations/${w.conversation}`,
    agents: '/agents',
    agent: `/agents/${w.reviewer}`,
    'agent-new': '/agents/new',
    inbox: '/inbox?of=reviewer',
    accounts: '/accounts',
    usage: '/usage',
    chain: `/chains/${w.message}`,
    'settings-config': '/settings/config',
    'settings-keys': '/settings/keys',
    'settings-users': '/settings/users',
    'settings-sessions': '/settings/sessions',
    'settings-audit': '/settings/audit',
    login: '/login',
    docs: '/docs',
  }
}
