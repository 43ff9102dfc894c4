import { createApp } from 'vue'
import App from './App.vue'
import { router } from './router'
import { loadSession } from './session'
import './style.css'
import './log/log.css'

const app = createApp(App)
app.use(router)
// Who is not logged in is on the way to the login page by now; without a
// connection the page says so.
void loadSession()
  .then(() => sessionStorage.removeItem('agented.reloaded'))
  .catch(() => {})
  .finally(() => app.mount('#app'))
