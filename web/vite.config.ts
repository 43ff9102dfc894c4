import { createHash } from 'node:crypto'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { brotliCompressSync, constants, gzipSync } from 'node:zlib'
import tailwindcss from '@tailwindcss/vite'
import vue from '@vitejs/plugin-vue'
import { defineConfig, type Plugin } from 'vite'

const out = fileURLToPath(new URL('dist/app', import.meta.url))

// The choice of dark or light is applied before the first paint, by a script of
// its own: the policy of the server allows none in the page.
function themeFirst(): Plugin {
  const source = readFileSync(new URL('src/theme-first.js', import.meta.url), 'utf8').replace(/^\/\/.*\n/gm, '')
  const name = `assets/theme-${createHash('sha256').update(source).digest('hex').slice(0, 8)}.js`
  return {
    name: 'agented-theme-first',
    apply: 'build',
    transformIndexHtml: () => [{ tag: 'script', attrs: { src: `/${name}` }, injectTo: 'head-prepend' }],
    generateBundle() {
      this.emitFile({ type: 'asset', fileName: name, source })
    },
  }
}

// The server sends these in place of the files to whoever takes them.
function compress(): Plugin {
  return {
    name: 'agented-compress',
    apply: 'build',
    closeBundle() {
      for (const entry of readdirSync(out, { recursive: true, withFileTypes: true })) {
        if (!entry.isFile() || !/\.(js|css|html|svg)$/.test(entry.name)) continue
        const path = join(entry.parentPath, entry.name)
        const plain = readFileSync(path)
        if (plain.length < 600) continue
        writeFileSync(`${path}.gz`, gzipSync(plain, { level: 9 }))
        writeFileSync(`${path}.br`, brotliCompressSync(plain, { params: { [constants.BROTLI_PARAM_QUALITY]: 11 } }))
      }
    },
  }
}

export default defineConfig({
  plugins: [vue(), tailwindcss(), themeFirst(), compress()],
  resolve: { alias: { '@': fileURLToPath(new URL('src', import.meta.url)) } },
  build: {
    outDir: 'dist/app',
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: 'es2022',
    reportCompressedSize: false,
  },
  server: {
    proxy: {
      '^/(api|login|logout|setup|static|docs|openapi)': process.env.AGENTED_URL ?? 'http://127.0.0.1:20000',
    },
  },
  test: { include: ['test/**/*.test.ts'], environment: 'happy-dom' },
} as Parameters<typeof defineConfig>[0])

