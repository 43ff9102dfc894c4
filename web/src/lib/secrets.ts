import { shallowRef, type ShallowRef } from 'vue'
import { api } from '@/api/client'
import { may } from '@/session'

/** The names of the named secrets, empty until they are loaded and for people who may not see them. */
export function useSecretNames(): ShallowRef<string[]> {
  const names = shallowRef<string[]>([])
  if (may('admin'))
    api.GET('/api/v1/secrets').then(
      ({ data }) => (names.value = data?.items.map(s => s.name) ?? []),
      () => undefined, // the name can be typed
    )
  return names
}

/** Splits the text of a field that takes several names. */
export function namesOf(text: string): string[] {
  return text
    .split(/[\n,]/)
    .map(s => s.trim())
    .filter(Boolean)
}
