// The page with the real server, real agents and real containers: the views, a log at 1,000 lines/s, hostile lines, a host that goes away
// and comes back, the login, and the keyboard. AGENT is the path of the agent. A Docker engine with the image of the tests must run.
import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { after, before, test } from 'node:test'
import { DESK, launch, open, PHONE, assertNoLongTask } from './browser.mjs'

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
const AGENT = process.env.AGENT
const NAME = `system-agent-page-${process.pid}`
const KEY = 'key-of-the-test-of-the-page'
const PASSWORD = 'correct horse'
const folder = mkdtempSync(`${tmpdir()}/page-`)
const running = new Set()
let browser
let ports
let url
let busy
let other

const docker = (...words) => execFileSync('docker', words, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] })
const container = (name, script) =>
  docker('run', '--detach', '--name', `${NAME}-${name}`, '--label', NAME, 'system-agent-test', 'sh', '-c', script)

function start(words, variables, input) {
  const child = spawn(AGENT, words, { env: { PATH: process.env.PATH, API_KEY: KEY, ...variables }, stdio: [input === undefined ? 'ignore' : 'pipe', 'ignore', 'pipe'] })
  let log = ''
  child.stderr.on('data', (data) => (log += data))
  if (input !== undefined) child.stdin.end(input)
  running.add(child)
  const ended = new Promise((resolve) => child.on('exit', (code) => { running.delete(child); resolve(code) }))
  return Object.assign(child, { ended, log: () => log })
}

async function stop(child) {
  child.kill('SIGKILL')
  await child.ended
}

function freePort() {
  return new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address()
      server.close(() => resolve(port))
    })
  })
}

const agent = (port, variables) =>
  start([], { SOCKET_ADDRESS: '127.0.0.1', SOCKET_PORT: String(port), PUBLISH_INTERVAL: '1s', SYSTEM_INTERVAL: '1s', DOCKER_INTERVAL: '1s', CONTAINERS_INCLUDE: `${NAME}-*`, ...variables })

async function serve(port, variables = {}) {
  const hosts = [ports.busy, ports.other].map((one) => `127.0.0.1:${one}`)
  start(['web', ...hosts], { WEB_ADDRESS: `127.0.0.1:${port}`, WEB_HISTORY_FOLDER: 'off', ...variables })
  const address = `http://127.0.0.1:${port}`
  for (const end = Date.now() + 20_000; ; ) {
    const answer = await fetch(`${address}/`).catch(() => null)
    if (answer?.ok) return address
    assert.ok(Date.now() < end, 'the server does not answer')
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
}

before(async () => {
  const [first, second, page, login] = await Promise.all([freePort(), freePort(), freePort(), freePort()])
  ports = { busy: first, other: second, page, login }
  container('chatty', 'i=0; while :; do n=0; while [ $n -lt 100 ]; do echo "INFO line $i of many"; i=$((i+1)); n=$((n+1)); done; sleep 0.1; done')
  container('evil', `echo '<img src=x onerror="alert(1)"><script>alert(2)</script>'; printf '\\033[31mred\\033[0m \\342\\200\\256reversed\\n'; head -c 1048576 /dev/zero | tr '\\0' x; echo; echo last hostile line; sleep 1d`)
  container('dead', 'echo last words; exit 3')
  agent(ports.busy)
  other = agent(ports.other, { DOCKER_ENABLED: 'false' })
  url = await serve(ports.page)
  busy = `127.0.0.1:${ports.busy}`
  browser = await launch()
})

after(async () => {
  await browser?.close()
  for (const child of [...running]) await stop(child)
  const all = docker('ps', '--all', '--quiet', '--filter', `label=${NAME}`).split('\n').filter(Boolean)
  if (all.length) docker('rm', '--force', ...all)
  rmSync(folder, { recursive: true })
})

const until = (page, condition, argument) => page.waitForFunction(condition, argument, { timeout: 30_000 })

const VIEWS = {
  hosts: () => ['/', 'tbody tr:nth-child(2)'],
  host: () => [`/hosts/${busy}`, '.chart canvas'],
  container: () => [`/hosts/${busy}/containers/${NAME}-chatty`, '.log-row'],
  'hostile container': () => [`/hosts/${busy}/containers/${NAME}-evil`, '.log-row'],
  'stopped container': () => [`/hosts/${busy}/containers/${NAME}-dead`, '.log-row'],
  logs: () => [`/logs?of=${busy}/${NAME}-chatty&of=${busy}/${NAME}-evil`, '.log-row'],
}
for (const [name, view] of Object.entries(VIEWS)) {
  for (const [sizeName, size] of [['desk', DESK], ['phone', PHONE]]) {
    for (const scheme of ['light', 'dark']) {
      test(`${name}, ${sizeName}, ${scheme}`, async () => {
        const [path, ready] = view()
        const page = await open(browser, url + path, { size, scheme })
        await page.waitForSelector(ready, { timeout: 30_000 })
        await page.waitForTimeout(300)
        await page.evaluate(AXE)
        const { violations } = await page.evaluate(() => globalThis.axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] }))
        assert.deepEqual(violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.html.slice(0, 160)).join(' | ')}`), [])
        assert.deepEqual([page.errors, page.foreign], [[], []])
        const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)
        assert.ok(wide <= 0, `${wide} pixels wider than the screen`)
        await page.context().close()
      })
    }
  }
}

test('hostile lines are only text', async () => {
  const page = await open(browser, `${url}/hosts/${busy}/containers/${NAME}-evil`)
  await until(page, () => document.body.textContent.includes('last hostile line'))
  const text = await page.textContent('main')
  assert.match(text, /<img src=x onerror="alert\(1\)"><script>alert\(2\)<\/script>/)
  assert.equal(await page.locator('main img, main script').count(), 0)
  assert.doesNotMatch(text, /\x1b|\u202e/)
  assert.deepEqual(page.errors, [])
  await page.context().close()
})

test('a stopped container shows its last words', async () => {
  const page = await open(browser, `${url}/hosts/${busy}/containers/${NAME}-dead`)
  await until(page, () => document.querySelector('.log-row')?.textContent.includes('last words'))
  await page.context().close()
})

test('a log of 1,000 lines/s is followed without a long task', async (t) => {
  const page = await open(browser, `${url}/hosts/${busy}/containers/${NAME}-chatty`)
  await page.waitForSelector('.log-row', { timeout: 30_000 })
  await page.waitForTimeout(2000)
  const newest = () => page.evaluate(() => Math.max(...[...document.querySelectorAll('.log-row')].map((row) => Number(/line (\d+)/.exec(row.textContent)?.[1] ?? 0))))
  const first = await newest()
  await assertNoLongTask(t, browser, page, () => page.waitForTimeout(2000))
  const lines = (await newest()) - first
  assert.ok(lines >= 5000, `${lines} lines`)
  assert.deepEqual(page.errors, [])
  await page.context().close()
})

test('a host goes away, keeps its figures, and comes back', async () => {
  const page = await open(browser, `${url}/`)
  const row = page.locator('tbody tr').filter({ hasText: 'away since' })
  await page.waitForSelector('tbody tr:nth-child(2)')
  await until(page, () => document.querySelectorAll('tbody tr .age').length === 0)
  await stop(other)
  await row.waitFor({ timeout: 30_000 })
  assert.match(await row.textContent(), /\d %/)
  other = agent(ports.other, { DOCKER_ENABLED: 'false' })
  await row.waitFor({ state: 'detached', timeout: 30_000 })
  await page.context().close()
})

test('a wrong password is told, the right one opens the page, and a session without requests ends', async () => {
  const file = `${folder}/password`
  const set = start(['web', '--set-password'], { WEB_PASSWORD_FILE: file }, `${PASSWORD}\n`)
  assert.equal(await set.ended, 0, set.log())
  const address = await serve(ports.login, { WEB_PASSWORD_FILE: file, WEB_SESSION_TIME: '3s' })
  const page = await open(browser, `${address}/hosts/${busy}`)
  await page.fill('#password', 'wrong')
  await page.keyboard.press('Enter')
  await until(page, () => document.querySelector('[role=alert]')?.textContent.includes('wrong'))
  await page.fill('#password', PASSWORD)
  await page.keyboard.press('Enter')
  await page.waitForSelector('.chart canvas', { timeout: 30_000 })
  await page.goto('about:blank')
  await page.waitForTimeout(4500)
  await page.goto(`${address}/hosts/${busy}`)
  await page.waitForSelector('#password', { timeout: 30_000 })
  await page.context().close()
})

test('the keyboard alone opens a host, its log, and goes back', async () => {
  const page = await open(browser, `${url}/`)
  await page.waitForSelector('tbody tr:nth-child(2)')
  await page.keyboard.press('j')
  await page.keyboard.press('Enter')
  await until(page, () => location.pathname.startsWith('/hosts/'))
  await page.keyboard.press('u')
  await until(page, () => location.pathname === '/')
  await page.keyboard.press('?')
  await page.waitForSelector('dialog[open]')
  await page.keyboard.press('Escape')
  await page.keyboard.press('l')
  await until(page, () => location.pathname.startsWith('/logs'))
  assert.deepEqual(page.errors, [])
  await page.context().close()
})
