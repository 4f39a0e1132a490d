// Logs: many lines a second, reading while lines come, older lines, search, links to lines.
import assert from 'node:assert/strict'
import { after, afterEach, before, test } from 'node:test'
import { start } from '../dev/server.mjs'
import * as world from '../dev/world.mjs'
import { DESK, launch, open, PHONE, assertNoLongTask } from './browser.mjs'

let browser
let server
let page
before(async () => {
  browser = await launch()
})
after(() => browser.close())
afterEach(async () => {
  await page?.context().close()
  await server?.stop()
})
const show = async (path, options = {}, size = DESK) => {
  server = await start({ hosts: [world.makeHost('alpha', { containers: ['web', 'api', 'worker', 'redis'].map((name) => world.container(name)) })], ...options })
  page = await open(browser, 'about:blank', { size })
  await page.goto(server.url + path)
  await page.waitForSelector('.log-row')
}
const until = (what, argument) => page.waitForFunction(what, argument, { timeout: 20_000 })
const atEnd = () => page.evaluate(() => {
  const list = document.querySelector('.log-list')
  return list.scrollHeight - list.scrollTop - list.clientHeight
})
const FOUR = '/logs?of=alpha:9000/web&of=alpha:9000/api&of=alpha:9000/worker&of=alpha:9000/redis'

test('1,000 lines a second do not block the page', async (t) => {
  await show(FOUR, { rate: 250 })
  await page.waitForTimeout(2000)
  // After 20 seconds the list is full, and each batch also removes rows.
  await page.waitForTimeout(20_000)
  await assertNoLongTask(t, browser, page, () => page.waitForTimeout(2000))
  const { rows, elements, end } = await page.evaluate(() => ({
    rows: document.querySelectorAll('.log-row').length,
    elements: document.querySelectorAll('*').length,
    end: document.querySelector('.log-row:last-child .log-time').title,
  }))
  t.diagnostic(`${rows} rows, ${elements} elements`)
  assert.ok(rows < 120)
  assert.ok(Date.now() - Date.parse(end) < 3000, `the newest line is of ${end}`)
  assert.ok((await atEnd()) < 5)
})

test('search, level and scrolling at 1,000 lines a second', async (t) => {
  await show(FOUR, { rate: 250 })
  await page.waitForTimeout(15_000)
  await assertNoLongTask(t, browser, page, async () => {
    await page.fill('.log-search', 'orders')
    await page.waitForSelector('mark')
    await page.check('.log-tools .check input')
    await page.waitForTimeout(500)
    await page.uncheck('.log-tools .check input')
    await page.selectOption('.log-tools select', 'warn')
    await page.waitForTimeout(500)
    await page.selectOption('.log-tools select', 'all')
    await page.hover('.log-list')
    await page.mouse.wheel(0, -600)
    await page.waitForTimeout(1000)
    await page.click('.log-new')
    await page.waitForTimeout(500)
    assert.ok((await atEnd()) < 5)
    // For the next time.
    await page.fill('.log-search', '')
    await until(() => !document.querySelector('mark'))
  })
})

test('new lines never move what is being read', async () => {
  await show(FOUR, { rate: 50 })
  await page.waitForTimeout(500)
  await page.hover('.log-list')
  await page.mouse.wheel(0, -900)
  await page.waitForTimeout(400)
  const seen = () => page.evaluate(() => {
    const list = document.querySelector('.log-list').getBoundingClientRect()
    return [...document.querySelectorAll('.log-row')].map((row) => [row.textContent, Math.round(row.getBoundingClientRect().top)]).filter(([, top]) => top > list.top && top < list.bottom - 30)
  })
  const before = await seen()
  await until(() => /[1-9]\d\d new lines/.test(document.querySelector('.log-new')?.textContent))
  assert.deepEqual(await seen(), before)
  await page.keyboard.press('g')
  await until(() => !document.querySelector('.log-new'))
  assert.ok((await atEnd()) < 5)
})

test('scrolling up loads older lines, without holes and without a jump', async () => {
  await show('/logs?of=alpha:9000/web&of=alpha:9000/api', { rate: 4 })
  await page.hover('.log-list')
  for (let turn = 0; turn < 12; turn += 1) {
    await page.mouse.wheel(0, -3000)
    await page.waitForTimeout(150)
  }
  assert.ok(server.state.requests.filter((request) => request.includes('/logs/older')).length >= 4)
  // Every line of both containers follows the one before.
  const last = {}
  const list = page.locator('.log-list')
  await list.evaluate((element) => (element.scrollTop = element.scrollHeight / 3))
  for (let turn = 0; turn < 10; turn += 1) {
    await page.waitForTimeout(60)
    for (const [id, at] of await page.evaluate(() => [...document.querySelectorAll('.log-row[data-number]')].map((row) => [row.querySelector('.log-name').textContent, row.querySelector('.log-time').title]))) {
      last[id] ??= []
      last[id].push(Date.parse(at))
    }
    await list.evaluate((element) => (element.scrollTop += 400))
  }
  for (const times of Object.values(last)) {
    const sorted = [...new Set(times)].sort((a, b) => a - b)
    assert.ok(sorted.length > 50)
    sorted.forEach((at, index) => assert.ok(index === 0 || at - sorted[index - 1] <= 500, `${at - sorted[index - 1]} ms without a line`))
  }
})

test('a search among hits only finds older lines in the files', async () => {
  await show('/logs?of=alpha:9000/web', { rate: 2 })
  await page.fill('.log-search', 'failed')
  await page.check('.log-tools .check input')
  await page.click('button:has-text("Load older lines")')
  await until(() => document.querySelectorAll('.log-row mark').length > 20)
  assert.ok(server.state.requests.some((request) => /older.*search=%28%3Fi%29failed/.test(request)))
  assert.match(page.url(), /search=failed&only=1/)
})

test('the estimated heights are those that the browser shows', async () => {
  for (const size of [DESK, PHONE]) {
    await show('/logs?of=alpha:9000/web&of=alpha:9000/redis', { rate: 5 }, size)
    const wrong = await page.evaluate(() => {
      const rows = [...document.querySelectorAll('.log-row')]
      const space = document.querySelector('.log-space').offsetHeight
      const bottom = document.querySelector('.log-window').getBoundingClientRect().bottom - document.querySelector('.log-space').getBoundingClientRect().top
      return { rows: rows.length, difference: Math.round(space - bottom) }
    })
    assert.ok(wrong.rows > 10)
    assert.equal(wrong.difference, 0)
    if (size === DESK) {
      await page.context().close()
      await server.stop()
    }
  }
})

test('a link to a line shows the line, its neighbours and the figures of that moment', async () => {
  const host = world.makeHost('alpha', { containers: [world.container('web')] })
  const number = Math.floor((Date.now() - 600_000) / 500)
  const line = world.logLine(host, 'web', number, 500)
  await show(`/logs?of=alpha:9000/web&line=${line.id}&at=${line.at}`, { rate: 2 })
  await page.waitForSelector('.log-row[aria-selected="true"]')
  await page.waitForSelector('.chosen')
  await page.waitForTimeout(200)
  assert.equal(await page.getAttribute('.log-row[aria-selected="true"] .log-time', 'title'), new Date(line.at).toISOString())
  const box = await page.locator('.log-row[aria-selected="true"]').boundingBox()
  const list = await page.locator('.log-list').boundingBox()
  assert.ok(box.y > list.y && box.y + box.height < list.y + list.height)
  await until(() => document.querySelector('.chosen')?.textContent.includes('At that moment: web cpu'))
  await page.click('.log-new')
  await until(() => Date.now() - Date.parse(document.querySelector('.log-row:last-child .log-time')?.title) < 5000)
  assert.doesNotMatch(page.url(), /line=/)
})

test('after a cut the log resumes where it was, and dropped lines are told', async () => {
  await show('/hosts/alpha:9000/containers/web', { rate: 10 })
  await page.waitForTimeout(500)
  server.cut(true)
  await until(() => document.querySelector('.log-tools')?.textContent.includes('Connection lost'))
  await page.waitForTimeout(1500)
  server.cut(false)
  await until(() => document.querySelector('.log-tools')?.textContent.includes('Connection lost') === false)
  server.state.extra.push(['dropped', { container: 'web', count: 312 }])
  await until(() => document.querySelector('.log-list')?.textContent.includes('312 lines of web were dropped here'))
  await page.waitForTimeout(500)
  const list = page.locator('.log-list')
  const times = new Set()
  for (let turn = 0; turn < 4; turn += 1) {
    for (const at of await page.evaluate(() => [...document.querySelectorAll('.log-row[data-number] .log-time')].map((time) => Date.parse(time.title)))) times.add(at)
    await page.hover('.log-list')
    await page.mouse.wheel(0, -400)
    await page.waitForTimeout(100)
  }
  const sorted = [...times].sort((a, b) => a - b)
  assert.ok(sorted.length > 30)
  sorted.forEach((at, index) => assert.ok(index === 0 || at - sorted[index - 1] <= 200, `${at - sorted[index - 1]} ms without a line`))
  assert.ok(await list.isVisible())
})

test('the chosen line stays on the screen, also the last one', async () => {
  await show('/logs?of=alpha:9000/web', { rate: 2 })
  await page.waitForTimeout(500)
  await page.locator('.log-row').last().click()
  await page.waitForSelector('.chosen')
  await page.waitForTimeout(300)
  const row = await page.locator('.log-row[aria-selected="true"]').boundingBox()
  const list = await page.locator('.log-list').boundingBox()
  assert.ok(row.y > list.y && row.y + row.height <= list.y + list.height)
})

test('a container can be downloaded', async () => {
  await show('/hosts/alpha:9000/containers/web', { rate: 2 })
  const [download] = await Promise.all([page.waitForEvent('download'), page.click('a[download]')])
  assert.match(download.url(), /\/logs\/download\?container=web&from=\d+&to=\d+$/)
})
