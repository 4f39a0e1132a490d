// Opens the page in the system's Chromium.
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
    if (!request.url().startsWith(new URL(url).origin) && !request.url().startsWith('data:')) foreign.push(request.url())
  })
  await page.goto(url)
  return Object.assign(page, { errors, foreign })
}
