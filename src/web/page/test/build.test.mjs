import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { brotliCompressSync, gzipSync } from 'node:zlib'

const page = fileURLToPath(new URL('..', import.meta.url))
const dist = join(page, 'dist')

test('the committed files are what the sources build to', () => {
  const folder = mkdtempSync(join(tmpdir(), 'page-'))
  try {
    execFileSync(process.execPath, [join(page, 'build.mjs'), folder])
    assert.deepEqual(readdirSync(dist).sort(), readdirSync(folder).sort())
    for (const name of readdirSync(folder)) {
      assert.ok(readFileSync(join(dist, name)).equals(readFileSync(join(folder, name))), `dist/${name} is not up to date: run npm run build`)
    }
  } finally {
    rmSync(folder, { recursive: true })
  }
})

test('the types are right', () => {
  execFileSync('npx', ['--no-install', 'tsc', '--noEmit'], { cwd: page, stdio: 'inherit' })
})

test('the first view is small', (t) => {
  let gzip = 0
  let brotli = 0
  for (const name of ['index.html', 'page.js', 'page.css', 'favicon.svg']) {
    const file = readFileSync(join(dist, name))
    gzip += gzipSync(file).length
    brotli += brotliCompressSync(file).length
  }
  t.diagnostic(`gzip ${(gzip / 1024).toFixed(1)} KiB, brotli ${(brotli / 1024).toFixed(1)} KiB`)
  // The answer of /stream for 100 hosts has about 20 KiB more.
  assert.ok(gzip < 80 * 1024, `${gzip} bytes`)
})

test('nothing is inline and nothing comes from elsewhere', () => {
  const html = readFileSync(join(dist, 'index.html'), 'utf8')
  assert.doesNotMatch(html, /<script(?![^>]*\ssrc=)/)
  assert.doesNotMatch(html, /<style|\sstyle=|\son\w+=/)
  for (const name of ['index.html', 'page.js', 'page.css', 'favicon.svg']) {
    const text = readFileSync(join(dist, name), 'utf8')
    assert.doesNotMatch(text, /sourceMappingURL/)
    // Names of XML namespaces are not addresses that a browser opens.
    const addresses = [...text.matchAll(/https?:\/\/[^"'`\s)]+/g)].map(([address]) => address).filter((address) => !address.startsWith('http://www.w3.org/'))
    assert.deepEqual(addresses, [], name)
  }
})
