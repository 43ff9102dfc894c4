// A server for one test, with a temporary data folder.
import { spawn } from 'node:child_process'
import { mkdtempSync, mkdirSync, readFileSync, rmSync, existsSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export const sleep = ms => new Promise(done => setTimeout(done, ms))

/** Polls until a condition holds, with a timeout. */
export async function until(what, ask, ms = 20_000) {
  const end = Date.now() + ms
  for (;;) {
    const got = await ask()
    if (got) return got
    if (Date.now() > end) throw new Error(`timed out after ${ms} ms: ${what}`)
    await sleep(50)
  }
}

function freePort() {
  return new Promise((done, fail) => {
    const s = createServer()
    s.on('error', fail)
    s.listen(0, '127.0.0.1', () => {
      const { port } = s.address()
      s.close(() => done(port))
    })
  })
}

export class Server {
  key = 'e2e-key-0123456789abcdef'

  static async start(bin, options = {}) {
    const s = new Server()
    s.bin = bin
    s.dir = mkdtempSync(join(tmpdir(), 'agented-e2e-'))
    mkdirSync(join(s.dir, 'run'), { mode: 0o700 })
    s.port = await freePort()
    s.url = `http://127.0.0.1:${s.port}`
    s.options = options
    // Stand-ins for agent CLIs, by name.
    mkdirSync(join(s.dir, 'bin'))
    for (const [name, script] of Object.entries(options.tools ?? {}))
      writeFileSync(join(s.dir, 'bin', name), script, { mode: 0o755 })
    await s.up()
    return s
  }

  async up() {
    const { args = [], env = {} } = this.options
    this.log = ''
    this.process = spawn(this.bin, ['serve', ...args], {
      env: {
        PATH: `${join(this.dir, 'bin')}:${process.env.PATH}`,
        HOME: this.dir,
        XDG_RUNTIME_DIR: join(this.dir, 'run'),
        AGENTED_DATA_DIR: join(this.dir, 'data'),
        AGENTED_BIND: `127.0.0.1:${this.port}`,
        AGENTED_API_KEY: this.key,
        AGENTED_MAX_CONCURRENT: '6',
        ...env,
      },
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    this.process.stderr.on('data', d => (this.log = (this.log + d).slice(-20_000)))
    this.gone = new Promise(done => this.process.on('exit', done))
    await until('the server is ready', async () => {
      if (this.process.exitCode !== null) throw new Error(`the server ended:\n${this.log.slice(0, 1500)}`)
      return fetch(`${this.url}/health/readiness`).then(
        r => r.ok,
        () => false,
      )
    })
  }

  /** Kills the server like a crash. */
  async kill() {
    this.process.kill('SIGKILL')
    await this.gone
  }

  async stop() {
    // Cancel running executions, which would continue without the server.
    try {
      for (const e of (await this.api('GET', '/api/v1/executions?status=running,pending&limit=200')).items)
        await this.api('POST', `/api/v1/executions/${e.id}/cancel`)
      await until(
        'all executions have ended',
        async () => (await this.api('GET', '/api/v1/executions?status=running&limit=1')).items.length === 0,
        15_000,
      )
    } catch (err) {
      console.error(String(err))
    }
    this.process.kill('SIGTERM')
    await Promise.race([this.gone, sleep(15_000).then(() => this.process.kill('SIGKILL'))])
    await this.gone
    rmSync(this.dir, { recursive: true, force: true })
  }

  get setupLink() {
    const file = join(this.dir, 'data', 'setup-link')
    return existsSync(file) ? readFileSync(file, 'utf8').trim() : ''
  }

  async api(method, path, body) {
    const r = await fetch(this.url + path, {
      method,
      body: body && JSON.stringify(body),
      headers: { 'X-API-Key': this.key, ...(body ? { 'Content-Type': 'application/json' } : {}) },
    })
    const text = await r.text()
    if (!r.ok) throw new Error(`${method} ${path}: ${r.status} ${text}`)
    return text ? JSON.parse(text) : undefined
  }

  async run(name, command, more = {}) {
    return (
      await this.api('POST', '/api/v1/executions', {
        name,
        backend: 'command',
        command: ['sh', '-c', command],
        ...more,
      })
    ).execution_id
  }

  execution(id) {
    return this.api('GET', `/api/v1/executions/${id}`)
  }

  ended(id, ms = 60_000) {
    return until(
      `${id} ends`,
      async () => {
        const e = await this.execution(id)
        return e.status !== 'pending' && e.status !== 'running' ? e : undefined
      },
      ms,
    )
  }
}
