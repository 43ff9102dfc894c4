// Runs before the first paint.
try {
  const theme = localStorage.getItem('agented.theme')
  if (theme === 'dark' || theme === 'light') document.documentElement.dataset.theme = theme
} catch {}
