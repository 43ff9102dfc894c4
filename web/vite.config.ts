import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { brotliCompressSync, constants, gzipSync } from 'node:zlib'
import tailwindcss from '@tailwindcss/vite'
import vue from '@vitejs/plugin-vue'
import { defineConfig, type Plugin } from 'vite'

const out = fileURLToPath(new URL('dist/app', import.meta.url))

// A separate script applies the theme before the first paint. The content security
// policy allows no inline script.
function themeFirst(): Plugin {
  const source = readFileSync(new URL('src/theme-first.js', import.meta.url), 'utf8').replace(/^\/\/.*\n/gm, '')
  const name = `assets/theme-${createHash('sha256').update(source).digest('hex').slice(0, 8)}.js`
  return {
    name: 'agented-theme-first',
    apply: 'build',
    transformIndexHtml: () => [{ tag: 'script', attrs: { src: `./${name}` }, injectTo: 'head-prepend' }],
    generateBundle() {
      this.emitFile({ type: 'asset', fileName: name, source })
    },
  }
}

// The licence notices name every package inside the bundle. bundled.json is the list
// that they are made from; a build that bundles other packages fails.
function bundledPackages(): Plugin {
  const path = fileURLToPath(new URL('bundled.json', import.meta.url))
  return {
    name: 'agented-bundled-packages',
    apply: 'build',
    generateBundle(_, bundle) {
      const found = new Set(['tailwindcss']) // its styles are part of the stylesheet
      for (const chunk of Object.values(bundle)) {
        if (chunk.type !== 'chunk') continue
        for (const id of chunk.moduleIds) {
          const name = /.*node_modules\/((?:@[^/]+\/)?[^/?]+)/.exec(id)?.[1]
          if (name) found.add(name)
        }
      }
      const list = `${JSON.stringify([...found].sort(), null, 2)}\n`
      if (process.env.UPDATE_BUNDLED) writeFileSync(path, list)
      else if (readFileSync(path, 'utf8') !== list)
        this.error(`web/bundled.json must be ${list}Run UPDATE_BUNDLED=1 npm run build in web/, then make generate.`)
    },
  }
}

// The server sends these to clients that accept the encoding.
function compress(): Plugin {
  return {
    name: 'agented-compress',
    apply: 'build',
    closeBundle() {
      if (!existsSync(out)) return // the build has failed
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
  base: './', // the server may be behind a proxy under a path
  plugins: [vue(), tailwindcss(), themeFirst(), bundledPackages(), compress()],
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
  // The tests have no state in common, so a worker can run several files without loading all again. The
  // time limits are for a busy machine.
  test: {
    include: ['test/**/*.test.ts'],
    environment: 'happy-dom',
    pool: 'threads',
    isolate: false,
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
} as Parameters<typeof defineConfig>[0])
