import { createApp } from 'vue'
import App from './App.vue'
import { pageStarted } from './api/client'
import { router } from './router'
import { loadSession } from './session'
import './style.css'
import './log/log.css'

const app = createApp(App)
app.use(router)
// Without a login the browser is already on its way to the login page; without a
// connection the page shows an error.
void loadSession()
  .then(() => {
    pageStarted()
  })
  .catch(() => {})
  .finally(() => app.mount('#app'))
