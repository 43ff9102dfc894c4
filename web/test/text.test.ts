import { describe, expect, it } from 'vitest'
import { bytes, cost, known, reasonOf, tokens } from '@/lib/format'
import { duration, elapsed, relative, sinceTime } from '@/lib/time'
import type { Execution } from '@/api/client'

describe('times for people', () => {
  it('have two parts at most', () => {
    expect([0, 999, 1234, 12_345, 59_600, 90_000, 3_600_000, 5_400_000, 200_000_000].map(duration)).toEqual([
      '0 ms',
      '999 ms',
      '1.2 s',
      '12 s',
      '1 m',
      '1 m 30 s',
      '1 h',
      '1 h 30 m',
      '2 d 7 h',
    ])
  })
  it('tick by the second', () => {
    expect(elapsed(1999)).toBe('1 s')
    expect(elapsed(61_500)).toBe('1 m 1 s')
    expect(relative(0, 9000)).toBe('9 s ago')
    expect(relative(90_000, 0)).toBe('in 1 m')
    expect(relative(0, 1000)).toBe('just now')
  })
  it('of a line count from the start', () => {
    const start = Date.parse('2026-01-01T00:00:00Z')
    expect(sinceTime('2026-01-01T00:00:01.250Z', start)).toBe('+1.250s')
    expect(sinceTime('2026-01-01T01:02:03.400Z', start)).toBe('+1:02:03.4')
  })
})

describe('figures', () => {
  it('that are not known are not zero', () => {
    expect(known(null)).toBe('unknown')
    expect(known(0)).toBe('0')
    expect(cost(null)).toBe('unknown')
    expect(cost(0)).toBe('$0')
    expect(tokens(null)).toBe('unknown')
    expect(tokens({ input_tokens: 5, output_tokens: null } as never)).toBe('5 in, unknown out')
  })
  it('of bytes are short', () => {
    expect([0, 1023, 1024, 1536, 5 << 20, 3e12].map(bytes)).toEqual([
      '0 B',
      '1023 B',
      '1.0 KiB',
      '1.5 KiB',
      '5.0 MiB',
      '2.7 TiB',
    ])
  })
})

it('a reason is a sentence', () => {
  const e = { status: 'failed', reason: 'exited with code 3', error_message: '', exit_code: 3 } as unknown as Execution
  expect(reasonOf(e)).toBe('Exited with code 3.')
  expect(reasonOf({ ...e, reason: '' })).toBe('Exit code 3.')
})
