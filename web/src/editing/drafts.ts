import { onBeforeUnmount, ref, watch } from 'vue'
import { ending, session } from '@/session'

interface Draft {
  at: string
  form: unknown
}

const keyOf = (name: string) => `agented.draft.${session.me?.user_id || session.me?.name}.${name}`

/** Removes secret values, which are not written to the browser's storage. */
function withoutSecrets(form: unknown): unknown {
  return JSON.parse(
    JSON.stringify(form, (key, v: unknown) => {
      if (/^(secret|previous_secret|password|credentials?)$/.test(key) && typeof v === 'string' && v !== '***')
        return ''
      if (v && typeof v === 'object' && 'mode' in v && 'value' in v && 'secret' in v)
        return v.mode === 'value' && v.secret ? { ...v, value: '' } : v
      return v
    }),
  )
}

/**
 * Keeps the unsaved form in the tab's storage, so that it survives a reload, a crash and
 * a login. `offered` has the time of a draft that is found for the form.
 */
export function useDraft<T>(o: {
  /** The form, for example "trigger.trg-1". Forms in dialogs have no draft while it is empty. */
  name: () => string
  form: () => T
  changed: () => boolean
  restore: (form: T) => void
}) {
  const offered = ref('')
  let found: Draft | undefined
  let timer = 0
  function write(): void {
    clearTimeout(timer)
    timer = 0
    if (!o.name() || offered.value || ending.now) return
    try {
      if (o.changed())
        sessionStorage.setItem(
          keyOf(o.name()),
          JSON.stringify({ at: new Date().toISOString(), form: withoutSecrets(o.form()) }),
        )
      else sessionStorage.removeItem(keyOf(o.name()))
    } catch {
      // The storage is full or switched off: the form works without a draft.
    }
  }
  watch(
    o.form,
    () => {
      if (!timer) timer = window.setTimeout(write, 300)
    },
    { deep: true },
  )
  /** Looks for a draft, once the form shows what is stored. */
  function look(): void {
    offered.value = ''
    found = undefined
    if (!o.name()) return
    try {
      const text = sessionStorage.getItem(keyOf(o.name()))
      if (!text) return
      found = JSON.parse(text) as Draft
      if (JSON.stringify(found.form) === JSON.stringify(withoutSecrets(o.form()))) return
      offered.value = found.at
    } catch {
      // A draft of an older version.
    }
  }
  function restore(): void {
    if (found) o.restore(found.form as T)
    offered.value = ''
  }
  /** Removes the draft, after the form was saved or the draft declined. */
  function discard(): void {
    offered.value = ''
    clearTimeout(timer)
    timer = 0
    if (o.name()) sessionStorage.removeItem(keyOf(o.name()))
  }
  addEventListener('pagehide', write)
  onBeforeUnmount(() => {
    removeEventListener('pagehide', write)
    if (timer) write()
  })
  return { offered, look, restore, discard }
}
