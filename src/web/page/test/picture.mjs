// node test/picture.mjs URL NAME: takes a picture of a real page, light and dark, into NAME-light.png and NAME-dark.png.
import { DESK, launch, open } from './browser.mjs'

const [url, name] = process.argv.slice(2)
const browser = await launch()
for (const scheme of ['light', 'dark']) {
  const page = await open(browser, url, { size: DESK, scheme })
  await page.waitForSelector('.chart canvas')
  await page.waitForTimeout(3000)
  await page.screenshot({ path: `${name}-${scheme}.png` })
  if (page.errors.length) throw new Error(page.errors[0])
}
await browser.close()
