// The agent CLIs of the server, for forms.
import { computed, shallowRef } from 'vue'
import { api, type Schemas } from '@/api/client'

export type AgentCLI = Schemas['AgentCLI']

const info = shallowRef<Schemas['Info']>()
let loading: Promise<void> | undefined

/** Loads the description of the server. A failed call is repeated by the next form. */
export function loadInfo(): Promise<void> {
  loading ??= api
    .GET('/api/v1/info')
    .then(({ data }) => void (info.value = data))
    .catch(() => {})
    .finally(() => (loading = undefined))
  return loading
}

/** Returns the server's CLIs, which are empty until they are loaded. */
export function useCLIs() {
  void loadInfo()
  const all = computed<AgentCLI[]>(() => info.value?.clis ?? [])
  const agents = computed(() => all.value.filter(c => c.agent))
  return {
    info,
    all,
    agents,
    /** The backend of a new form. */
    first: computed(() => agents.value[0]?.name ?? ''),
    find: (name: string) => all.value.find(c => c.name === name),
  }
}
