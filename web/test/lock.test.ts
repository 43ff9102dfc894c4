import { readFileSync } from 'node:fs'
import { expect, it } from 'vitest'

interface Entry {
  version?: string
  resolved?: string
  optionalDependencies?: Record<string, string>
}
const { packages } = JSON.parse(readFileSync('package-lock.json', 'utf8')) as { packages: Record<string, Entry> }

it('the lock names no place that packages come from', () => {
  expect(
    Object.entries(packages)
      .filter(([, p]) => p.resolved !== undefined)
      .map(([name]) => name),
  ).toEqual([])
})

// A registry that has not the builds for all platforms leaves them out of the
// lock, and `npm ci` then refuses it.
it('the lock has every build for another platform', () => {
  const missing: string[] = []
  for (const [at, p] of Object.entries(packages)) {
    for (const name of Object.keys(p.optionalDependencies ?? {})) {
      if (!packages[`node_modules/${name}`]?.version && !packages[`${at}/node_modules/${name}`]?.version)
        missing.push(`${at}: ${name}`)
    }
  }
  expect(missing).toEqual([])
})
