import { at, base } from '@/lib/base'
import { ref } from 'vue'
import { createRouter, createWebHistory, type RouteRecordRaw } from 'vue-router'

// Each path needs an entry in uiPaths of internal/api/pages/ui.go. meta.nav puts a page into
// the navigation.
export const routes: RouteRecordRaw[] = [
  {
    path: '/',
    name: 'overview',
    component: () => import('@/pages/OverviewPage.vue'),
    meta: { title: 'Overview', nav: 'Overview', icon: 'home' },
  },
  {
    path: '/executions',
    name: 'executions',
    component: () => import('@/pages/ExecutionsPage.vue'),
    meta: { title: 'Executions', nav: 'Executions', icon: 'list' },
  },
  {
    path: '/executions/:id',
    name: 'execution',
    component: () => import('@/pages/ExecutionPage.vue'),
    meta: { title: 'Execution', full: true },
    props: true,
  },
  {
    path: '/triggers',
    name: 'triggers',
    component: () => import('@/pages/TriggersPage.vue'),
    meta: { title: 'Triggers', nav: 'Triggers', icon: 'bolt' },
  },
  {
    path: '/triggers/:id',
    name: 'trigger',
    component: () => import('@/pages/TriggerPage.vue'),
    meta: { title: 'Trigger' },
    props: true,
  },
  {
    path: '/schedule',
    name: 'schedule',
    component: () => import('@/pages/SchedulePage.vue'),
    meta: { title: 'Schedule', nav: 'Schedule', icon: 'clock' },
  },
  {
    path: '/deliveries',
    name: 'deliveries',
    component: () => import('@/pages/DeliveriesPage.vue'),
    meta: { title: 'Deliveries', nav: 'Deliveries', icon: 'inbox' },
  },
  {
    path: '/deliveries/:id',
    name: 'delivery',
    component: () => import('@/pages/DeliveryPage.vue'),
    meta: { title: 'Delivery' },
    props: true,
  },
  {
    path: '/conversations',
    name: 'conversations',
    component: () => import('@/pages/ConversationsPage.vue'),
    meta: { title: 'Conversations', nav: 'Conversations', icon: 'talk' },
  },
  {
    path: '/conversations/:id',
    name: 'conversation',
    component: () => import('@/pages/ConversationPage.vue'),
    meta: { title: 'Conversation', full: true },
    props: true,
  },
  {
    path: '/agents',
    name: 'agents',
    component: () => import('@/pages/AgentsPage.vue'),
    meta: { title: 'Agents', nav: 'Agents', icon: 'agent' },
  },
  {
    path: '/agents/:id',
    name: 'agent',
    component: () => import('@/pages/AgentPage.vue'),
    meta: { title: 'Agent' },
    props: true,
  },
  {
    path: '/inbox',
    name: 'inbox',
    component: () => import('@/pages/InboxPage.vue'),
    meta: { title: 'Messages', nav: 'Messages', icon: 'mail' },
  },
  {
    path: '/accounts',
    name: 'accounts',
    component: () => import('@/pages/AccountsPage.vue'),
    meta: { title: 'Accounts', nav: 'Accounts', icon: 'key' },
  },
  {
    path: '/usage',
    name: 'usage',
    component: () => import('@/pages/UsagePage.vue'),
    meta: { title: 'Usage', nav: 'Usage', icon: 'chart' },
  },
  {
    path: '/chains/:id',
    name: 'chain',
    component: () => import('@/pages/ChainPage.vue'),
    meta: { title: 'Chain of causes' },
    props: true,
  },
  {
    path: '/settings/:part?',
    name: 'settings',
    component: () => import('@/pages/SettingsPage.vue'),
    meta: { title: 'Settings', nav: 'Settings', icon: 'gear' },
    props: true,
  },
  {
    path: '/:rest(.*)*',
    name: 'nothing',
    component: () => import('@/pages/NothingPage.vue'),
    meta: { title: 'Not found' },
  },
]

declare module 'vue-router' {
  interface RouteMeta {
    /** Title of the browser tab. */
    title: string
    /** Text of the navigation link; unset for pages without one. */
    nav?: string
    icon?: string
    /** Role that is needed to see the link. */
    role?: 'viewer' | 'operator' | 'admin'
    /** The page fills the window and scrolls inside. */
    full?: boolean
  }
}

export const router = createRouter({
  history: createWebHistory(base),
  routes,
  scrollBehavior(to, from, saved) {
    if (to.path === from.path) return false
    return saved ?? { top: 0 }
  },
})

router.afterEach((to, from) => {
  document.title = `${to.meta.title} · Agented`
  // Move the focus, so that screen readers announce the page and the keyboard starts at its top.
  if (from.name && to.path !== from.path) document.getElementById('main')?.focus({ preventScroll: true })
})

/** The page that opens when the server can be reached again; the banner names it. */
export const waitingFor = ref('')

// The code of a page cannot be loaded while the server restarts, and after an upgrade the
// files that this page refers to no longer exist: the browser stays here until the server
// answers, then loads the page again.
router.onError(async (err, to) => {
  if (!/import|fetch|load/i.test(String(err))) return
  const first = waitingFor.value === ''
  waitingFor.value = router.resolve(to).href
  if (!first) return
  for (let wait = 200; ; wait = Math.min(2000, wait * 2)) {
    const alive = await fetch(at('/health/liveness'), { cache: 'no-store' }).then(
      r => r.ok,
      () => false,
    )
    if (alive) break
    await new Promise(done => setTimeout(done, wait))
  }
  const href = waitingFor.value
  waitingFor.value = ''
  if (sessionStorage.getItem('agented.reloaded') === href) return // the file is missing on the server
  sessionStorage.setItem('agented.reloaded', href)
  location.assign(href)
})
// A page that opens, or another one that is chosen meanwhile, ends the wait.
router.afterEach(() => void sessionStorage.removeItem('agented.reloaded'))
