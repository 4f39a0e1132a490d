// node test/pictures.mjs [NAME…]: takes a picture of every view, in both sizes and themes, into pictures/.
import { mkdirSync } from 'node:fs'
import { start } from '../dev/server.mjs'
import * as world from '../dev/world.mjs'
import { DESK, launch, open, PHONE } from './browser.mjs'

const folder = new URL('../pictures/', import.meta.url).pathname
mkdirSync(folder, { recursive: true })
const now = Date.now()
const servers = {
  fleet: await start({ hosts: world.fleet(now), rate: 2 }),
  first: await start({ hosts: world.first(now) }),
  login: await start({ password: 'secret' }),
  hostile: await start({ hosts: world.hostile(now), state: { hostile: true } }),
}
const line = world.logLine(servers.fleet.state.hosts[0], 'api', Math.floor((now - 60_000) / 500), 500)
const VIEWS = {
  hosts: ['fleet', '/'],
  host: ['fleet', '/hosts/alpha:9000'],
  away: ['fleet', '/hosts/delta:9000'],
  container: ['fleet', '/hosts/alpha:9000/containers/web'],
  unhealthy: ['fleet', '/hosts/alpha:9000/containers/search'],
  stopped: ['fleet', '/hosts/alpha:9000/containers/importer'],
  logs: ['fleet', '/logs?of=alpha:9000/web&of=alpha:9000/api&of=alpha:9000/worker&of=alpha:9000/postgres'],
  search: ['fleet', '/logs?of=alpha:9000/web&of=alpha:9000/api&search=orders'],
  line: ['fleet', `/logs?of=alpha:9000/api&line=${line.id}&at=${line.at}`],
  choose: ['fleet', '/logs'],
  day: ['fleet', '/hosts/alpha:9000?range=24h'],
  first: ['first', '/'],
  login: ['login', '/'],
  hostile: ['hostile', '/hosts/evil:9000'],
  hostilelog: ['hostile', '/logs?of=evil:9000/web&of=evil:9000/db'],
  missing: ['fleet', '/hosts/nobody:9000'],
}
const wanted = process.argv.slice(2)
const browser = await launch()
for (const [name, [server, path]] of Object.entries(VIEWS)) {
  if (wanted.length && !wanted.includes(name)) continue
  for (const [sizeName, size] of [['desk', DESK], ['phone', PHONE]]) {
    for (const scheme of ['light', 'dark']) {
      if (process.env.FEW && (scheme === 'dark') !== (sizeName === 'desk')) continue
      const page = await open(browser, servers[server].url + path, { size, scheme })
      await page.waitForTimeout(1200)
      await page.screenshot({ path: `${folder}${name}-${sizeName}-${scheme}.png`, fullPage: process.env.FULL === '1' })
      if (page.errors.length) console.log(name, sizeName, scheme, page.errors.slice(0, 3))
      await page.context().close()
    }
  }
}
await browser.close()
await Promise.all(Object.values(servers).map((server) => server.stop()))
