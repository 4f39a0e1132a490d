// Opens the page in the system's Chromium.
import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { chromium } from 'playwright-core'

const PLACES = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome']

export function launch() {
  const executablePath = PLACES.find((place) => place && existsSync(place))
  if (!executablePath) throw new Error('there is no Chromium: run tests/setup/page.sh, or set CHROMIUM to its path')
  return chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'] })
}

export const DESK = { width: 1440, height: 900 }
export const PHONE = { width: 390, height: 844 }

/** A page of its own context. Whatever the page writes to the console as an error, or asks of another host, is kept. */
export async function open(browser, url, { size = DESK, scheme = 'light', context = {} } = {}) {
  const made = await browser.newContext({
    viewport: size, colorScheme: scheme, locale: 'en-GB', timezoneId: 'Europe/Vienna', reducedMotion: 'reduce',
    ...(size === PHONE ? { hasTouch: true, isMobile: true, deviceScaleFactor: 2 } : {}),
    ...context,
  })
  const page = await made.newPage()
  const errors = []
  const foreign = []
  page.on('console', (message) => {
    if (message.type() === 'error') errors.push(message.text())
  })
  page.on('pageerror', (error) => errors.push(String(error)))
  page.on('dialog', (dialog) => {
    errors.push(`a dialog: ${dialog.message()}`)
    void dialog.dismiss()
  })
  page.on('request', (request) => {
    if (!request.url().startsWith(url === 'about:blank' ? 'http://127.0.0.1:' : new URL(url).origin) && !request.url().startsWith('data:')) foreign.push(request.url())
  })
  await page.goto(url)
  return Object.assign(page, { errors, foreign })
}

/** The longest task of the page's main thread while `work` runs: in ms of CPU time and in ms by the clock. */
async function longestTask(browser, page, work) {
  await browser.startTracing(page, { categories: ['toplevel', 'devtools.timeline', 'disabled-by-default-devtools.timeline', '__metadata'] })
  await work()
  const { traceEvents } = JSON.parse((await browser.stopTracing()).toString())
  const main = new Set(traceEvents.filter((event) => event.name === 'thread_name' && event.args.name === 'CrRendererMain').map((event) => `${event.pid} ${event.tid}`))
  const all = traceEvents.filter((event) => event.ph === 'X' && /^(RunTask|ThreadControllerImpl::RunTask)$/.test(event.name) && main.has(`${event.pid} ${event.tid}`))
  if (!all.some((event) => event.tdur > 0)) throw new Error('the trace has no CPU times')
  const most = (values) => Math.round(values.reduce((a, b) => Math.max(a, b), 0) / 100) / 10
  return { cpu: most(all.map((event) => event.tdur ?? 0)), wall: most(all.map((event) => event.dur)) }
}

/**
 * Runs `work` five times. Fails if each of the five has a task of the page's main thread that needs more than `most` ms of CPU time.
 *
 * A virtual machine counts the time in which its host stopped a processor as CPU time of the thread that ran. (Measured for 12 seconds: a
 * loop that needs 3 ms took up to 26 ms.) Such a stop affects only some of the five runs. A long task that `work` causes each time is in all
 * of them. A task that comes only in the first run, or more rarely than `work` ends, is not found.
 */
export async function assertNoLongTask(t, browser, page, work, most = 50) {
  const longest = []
  for (let part = 0; part < 5; part += 1) longest.push(await longestTask(browser, page, work))
  const list = (values) => values.join(', ')
  t.diagnostic(`longest task: ${list(longest.map(({ cpu }) => cpu))} ms of CPU time, ${list(longest.map(({ wall }) => wall))} ms by the clock`)
  const least = Math.min(...longest.map(({ cpu }) => cpu))
  assert.ok(least <= most, `a task of at least ${least} ms of CPU time in each of five parts`)
}
