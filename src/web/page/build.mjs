// Builds the page. The result is the same for the same sources and the same lock file.
//
//   node build.mjs [FOLDER]    by default the folder is dist
import { build } from 'esbuild'
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
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

// The licences of what page.js and page.css contain ask for their text beside it.
const { dependencies } = JSON.parse(readFileSync(join(here, 'package.json'), 'utf8'))
const licences = [...Object.keys(dependencies), '@preact/signals-core'].sort().map((name) => {
  const folder = join(here, 'node_modules', name)
  const { version } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'))
  const file = ['LICENSE', 'LICENSE.md', 'LICENSE.txt'].map((one) => join(folder, one)).find(existsSync)
  if (!file) throw new Error(`${name} has no text of its licence`)
  return `${name} ${version}\n\n${readFileSync(file, 'utf8').trim()}\n`
})
writeFileSync(join(to, 'licences.txt'), licences.join('\n\n'))
