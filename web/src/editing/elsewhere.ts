import { shallowRef, type ShallowRef } from 'vue'
import { useChanges, type ListName } from '@/api/changes'

/**
 * Follows the object of a form. A form without changes shows each new version; otherwise
 * the newer version is returned, for a banner.
 */
export function useElsewhere<T extends { etag: string }>(o: {
  list: ListName
  shown: () => T | undefined
  read: () => Promise<T | undefined>
  changed: () => boolean
  show: (now: T) => void
}): ShallowRef<T | undefined> {
  const newer = shallowRef<T>()
  useChanges([o.list], async () => {
    const base = o.shown()
    if (!base) return
    const now = await o.read().catch(() => undefined)
    // The form may have been saved meanwhile.
    if (!now || o.shown() !== base) return
    if (now.etag === base.etag) newer.value = undefined
    else if (o.changed()) newer.value = now
    else o.show(now)
  })
  return newer
}
