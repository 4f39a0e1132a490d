// Every view, in both sizes and themes: axe finds nothing, nothing goes wrong, nothing is wider than the screen, and nothing is
// asked of another host.
import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import { readFileSync } from 'node:fs'
import { after, before, test } from 'node:test'
import { start } from '../dev/server.mjs'
import * as world from '../dev/world.mjs'
import { DESK, launch, open, PHONE } from './browser.mjs'

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
const now = Date.now()
let browser
const servers = {}

before(async () => {
  browser = await launch()
  servers.fleet = await start({ hosts: world.fleet(now), rate: 2 })
  servers.first = await start({ hosts: world.first(now) })
  servers.full = await start({ hosts: world.fleet(now), state: { historyError: 'database or disk is full' } })
  servers.none = await start({ hosts: [] })
  servers.login = await start({ password: 'secret' })
  servers.hostile = await start({ hosts: world.hostile(now), state: { hostile: true } })
})
after(async () => {
  await browser.close()
  for (const server of Object.values(servers)) await server.stop()
})

const VIEWS = {
  hosts: ['fleet', '/', 'tbody tr'],
  'no hosts': ['none', '/', '.quiet'],
  'full disk': ['full', '/', '.banner'],
  'first run': ['first', '/', '.chart canvas'],
  host: ['fleet', '/hosts/alpha:9000', '.chart canvas'],
  'away host': ['fleet', '/hosts/delta:9000', '.chart canvas'],
  container: ['fleet', '/hosts/alpha:9000/containers/web', '.log-row'],
  'unhealthy container': ['fleet', '/hosts/alpha:9000/containers/search', '.check-output'],
  'stopped container': ['fleet', '/hosts/alpha:9000/containers/importer', '.log-row'],
  logs: ['fleet', '/logs?of=alpha:9000/web&of=alpha:9000/api&search=orders', 'mark'],
  'choice of logs': ['fleet', '/logs', '.choose'],
  login: ['login', '/', '#password'],
  'hostile host': ['hostile', '/hosts/evil:9000', '.chart canvas'],
  'hostile log': ['hostile', '/logs?of=evil:9000/web', '.log-row'],
}

for (const [name, [server, path, ready]] of Object.entries(VIEWS)) {
  for (const [sizeName, size] of [['desk', DESK], ['phone', PHONE]]) {
    for (const scheme of ['light', 'dark']) {
      test(`${name}, ${sizeName}, ${scheme}`, async () => {
        const page = await open(browser, servers[server].url + path, { size, scheme })
        try {
          await page.waitForSelector(ready, { timeout: 10_000 })
          await page.waitForTimeout(300)
          await page.evaluate(AXE)
          const { violations } = await page.evaluate(() => globalThis.axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] }))
          assert.deepEqual(violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.html.slice(0, 160)).join(' | ')}`), [])
          assert.deepEqual(page.errors, [])
          assert.deepEqual(page.foreign, [])
          const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)
          assert.ok(wide <= 0, `${wide} pixels wider than the screen`)
        } finally {
          await page.context().close()
        }
      })
    }
  }
}

test('hostile names and lines are only text', async () => {
  for (const path of ['/', '/hosts/evil:9000', '/logs?of=evil:9000/web', `/hosts/evil:9000/containers/${encodeURIComponent('<img src=x onerror=alert(1)>')}`]) {
    const page = await open(browser, servers.hostile.url + path)
    await page.waitForSelector('.log-row, .chart canvas')
    await page.waitForTimeout(500)
    const found = await page.evaluate(() => ({
      made: document.querySelectorAll('img, b:not(figcaption b), script:not([src]), iframe').length,
      links: [...document.querySelectorAll('a[href]')].filter((link) => !/^https?:$/.test(link.protocol)).length,
      bidi: /[\u202a-\u202e\u2066-\u2069\u001b]/.test(document.body.innerText),
      text: document.body.innerText,
    }))
    assert.equal(found.made, 0, path)
    assert.equal(found.links, 0, path)
    assert.equal(found.bidi, false, path)
    assert.match(found.text, path.startsWith('/logs') ? /<script>alert\("log"\)<\/script>/ : /<img src=x onerror=alert\(1\)>/)
    assert.deepEqual(page.errors, [])
    await page.context().close()
  }
})
