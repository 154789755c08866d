// Drives a page of the viewer in headless Chromium and prints, as JSON, what each step gave.
//
//   node page.mjs PAGES.json     [{url, size: [w, h], steps: [{evaluate | key | drag | wheel | slide | picture ...}]}]
//
// PLAYWRIGHT_CORE, CHROMIUM_PATH   as in tests/comfyui/editor.mjs
//
// Printed: [{results, errors, outside, ms}]: a value and a time a step, what the page and its console said, and requests
// that left the page's own server or file.

import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'

const { chromium } = createRequire(join(process.env.PLAYWRIGHT_CORE, 'package.json'))('playwright-core')
const flags = ['--no-sandbox', '--use-gl=angle', '--use-angle=swiftshader', '--enable-unsafe-swiftshader']
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM_PATH || '/usr/bin/chromium', args: flags })
const settled = 'lyra.settled().then(() => lyra.state)'

const take = {
  evaluate: (page, text) => page.evaluate(text),
  key: async (page, [key, ms]) => {
    await page.keyboard.down(key)
    await page.waitForTimeout(ms)
    await page.keyboard.up(key)
    return page.evaluate(settled)
  },
  drag: async (page, [from, to, button]) => {
    await page.mouse.move(...from)
    await page.mouse.down({ button })
    await page.mouse.move(...to, { steps: 4 })
    await page.mouse.up({ button })
    return page.evaluate(settled)
  },
  wheel: async (page, by) => {
    await page.mouse.wheel(0, by)
    return page.evaluate(settled)
  },
  click: async (page, selector) => {
    await page.click(selector)
    return page.evaluate(settled)
  },
  slide: async (page, value) => {
    await page.locator('#slide').fill(String(value))
    return page.evaluate(settled)
  },
  // The splats alone, as a PNG in base64
  picture: async (page) => {
    await page.evaluate(settled)
    return page.evaluate(`lyra.picture().then((blob) => blob.arrayBuffer())
      .then((buffer) => btoa(Array.from(new Uint8Array(buffer), (byte) => String.fromCharCode(byte)).join('')))`)
  },
  shot: (page, path) => page.screenshot({ path }).then(() => path),
  wait: (page, ms) => page.waitForTimeout(ms)
}

async function visit({ url, size, steps }) {
  const found = { results: [], errors: [], outside: [], ms: [] }
  const page = await browser.newPage({ viewport: { width: size[0], height: size[1] } })
  page.on('pageerror', (error) => found.errors.push(String(error)))
  page.on('console', (message) => message.type() === 'error' && found.errors.push(message.text()))
  page.on('request', (request) => {
    const to = request.url()
    if (!/^(data|blob):/.test(to) && new URL(to).origin !== new URL(url).origin) found.outside.push(to)
    if (to.startsWith('file:') && to !== url) found.outside.push(to)
  })
  await page.goto(url)
  await page.waitForFunction('window.lyra?.scene')
  await page.evaluate(settled)
  for (const step of steps) {
    const [[kind, value]] = Object.entries(step)
    const start = Date.now()
    found.results.push((await take[kind](page, value)) ?? null)
    found.ms.push(Date.now() - start)
  }
  await page.close()
  return found
}

try {
  const found = []
  for (const job of JSON.parse(readFileSync(process.argv[2], 'utf8'))) found.push(await visit(job))
  console.log(JSON.stringify(found))
} finally {
  await browser.close()
}
