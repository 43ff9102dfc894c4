import { createApp, h, type Component } from 'vue'

/** mount draws a component and returns the element around it. */
export function mount(component: Component, props: Record<string, unknown>): HTMLElement {
  const el = document.createElement('div')
  createApp({ render: () => h(component, props) }).mount(el)
  return el
}
