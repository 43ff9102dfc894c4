import type { Schemas } from '@/api/client'

type Check = Schemas['AccountCheck']['result']

const looks: Record<Check, [string, string]> = {
  not_installed: ['Not installed', 'bg-warn-back text-warn'],
  no_credentials: ['No credentials', 'bg-warn-back text-warn'],
  not_tried: ['Not tried', 'bg-mute-back text-mute'],
  works: ['Works', 'bg-good-back text-good'],
  refused: ['Refused', 'bg-bad-back text-bad'],
}
export const checkText = (c: Check): string => looks[c]?.[0] ?? c
export const checkTone = (c: Check): string => looks[c]?.[1] ?? 'bg-mute-back text-mute'

/** Returns the command of a sentence, which is between backticks; '' if there is none. */
export const commandIn = (text: string): string => /`([^`]+)`/.exec(text)?.[1] ?? ''
