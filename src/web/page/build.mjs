// Builds the page. The result is the same for the same sources and the same lock file.
//
//   node build.mjs [FOLDER]    by default the folder is dist
import { build } from 'esbuild'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const here = dirname(fileURLToPath(import.meta.url))
const to = resolve(process.argv[2] ?? join(here, 'dist'))
rmSync(to, { recursive: true, force: true })
mkdirSync(to, { recursive: true })

await build({
  absWorkingDir: here,
  entryPoints: { page: 'src/main.tsx' },
  outdir: to,
  bundle: true,
  format: 'esm',
  target: ['chrome107', 'firefox115', 'safari16.4'],
  minify: true,
  charset: 'utf8',
  legalComments: 'none',
  jsx: 'automatic',
  jsxImportSource: 'preact',
  logLevel: 'warning',
})
for (const name of ['index.html', 'favicon.svg']) writeFileSync(join(to, name), readFileSync(join(here, 'src', name)))
