import { expect, test } from 'vitest'
import { checkText, commandIn } from '@/lib/accounts'

test('the result of a check is a state that people read', () => {
  expect(checkText('not_installed')).toBe('Not installed')
  expect(checkText('works')).toBe('Works')
})
test('the command of a fix is what stands between backticks', () => {
  expect(commandIn('install it with `npm install -g x`, then restart')).toBe('npm install -g x')
  expect(commandIn('log in as the server user')).toBe('')
})
