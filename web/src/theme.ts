import { ref, watch } from 'vue'

export type Theme = 'system' | 'light' | 'dark'
const key = 'agented.theme'

function stored(): Theme {
  const t = localStorage.getItem(key)
  return t === 'light' || t === 'dark' ? t : 'system'
}

/** Dark, light, or the setting of the system. */
export const theme = ref<Theme>(stored())

watch(theme, t => {
  if (t === 'system') {
    localStorage.removeItem(key)
    delete document.documentElement.dataset.theme
  } else {
    localStorage.setItem(key, t)
    document.documentElement.dataset.theme = t
  }
})
