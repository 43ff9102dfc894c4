// What waits for a person: for the overview, the navigation and the tab's title.
import { shallowRef, watch } from 'vue'
import { api, type Schemas } from '@/api/client'
import { useChanges } from '@/api/changes'
import plainIcon from '@/icon.svg?raw'

export type Attention = Schemas['Need']

export const attention = shallowRef<Schemas['NeedList']>({ items: [], urgent: 0 })

let run = 0
export async function loadAttention(): Promise<void> {
  const mine = ++run
  const { data } = await api.GET('/api/v1/attention').catch(() => ({ data: undefined }))
  if (mine === run && data) attention.value = data
}

/** Follows what waits for a person; called once, by the frame of the application. */
export function followAttention(): void {
  let timer = 0
  useChanges(['execution', 'account', 'budget', 'trigger'], () => {
    clearTimeout(timer)
    timer = window.setTimeout(() => void loadAttention(), 500)
  })
  watch(
    () => attention.value.urgent,
    n => {
      mark()
      const icon = document.querySelector<HTMLLinkElement>('link[rel=icon]')
      if (!icon) return
      icon.dataset.plain ??= icon.href
      icon.href = n > 0 ? dotted : icon.dataset.plain
    },
  )
  // Pages set the title when they open and when their object has loaded.
  const title = document.querySelector('title')
  if (title) new MutationObserver(mark).observe(title, { childList: true })
}

/** Puts the number of urgent items before the title of the tab. */
function mark(): void {
  const plain = document.title.replace(/^\(\d+\) /, '')
  const n = attention.value.urgent
  const wanted = n > 0 ? `(${n}) ${plain}` : plain
  if (document.title !== wanted) document.title = wanted
}

// The icon with a dot.
const dotted =
  'data:image/svg+xml,' +
  encodeURIComponent(plainIcon.replace('</svg>', '<circle cx="25" cy="7" r="7" fill="#dc2626"/></svg>'))
