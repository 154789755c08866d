// Opens a workflow with Explore Splats in ComfyUI's editor in both looks, runs it, walks in the view and runs it again.
//
//   node explore.mjs URL WORKFLOW [PICTURE]     PLAYWRIGHT_CORE, CHROMIUM_PATH, LYRA_SCREENSHOTS: as in editor.mjs
//
// Printed, as JSON, for each look: shown (moments of the scene in the view), before and after (the state that was saved:
// at first, and after keys), image (what the node's picture was called the second time), errors and refused.

import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'

const [url, file, pictures] = process.argv.slice(2)
const { chromium } = createRequire(join(process.env.PLAYWRIGHT_CORE, 'package.json'))('playwright-core')
const flags = ['--no-sandbox', '--use-gl=angle', '--use-angle=swiftshader', '--enable-unsafe-swiftshader']
const NOT_OURS = /^404 \/(user\.css|api\/userdata)|Failed to load resource|Content Security Policy|net::ERR_FAILED/
const NODE = `window.app.graph.nodes.find((node) => node.type === 'LyraExploreSplats')`
const STATE = `${NODE}.widgets.find((widget) => widget.name === 'state').value`

const run = () =>
  new Promise((resolve) => {
    for (const name of ['execution_success', 'execution_error'])
      window.app.api.addEventListener(name, ({ detail }) => resolve(`${name} ${detail?.exception_message ?? ''}`))
    window.app.queuePrompt(0, 1)
  })

async function visit(browser, look) {
  const found = { errors: [], refused: [] }
  const page = await browser.newPage({ viewport: { width: 1100, height: 800 } })
  page.setDefaultTimeout(120000)
  const note = (kind, text) => NOT_OURS.test(text) || found[kind].push(text.slice(0, 400))
  await page.route(/^https?:/, (route) => (route.request().url().startsWith(url) ? route.continue() : route.abort()))
  page.on('pageerror', (error) => note('errors', String(error)))
  page.on('console', (message) => message.type() === 'error' && note('errors', message.text()))
  page.on('response', (reply) => reply.status() >= 400 && note('refused', `${reply.status()} ${new URL(reply.url()).pathname}`))
  for (const [key, data] of Object.entries({ TutorialCompleted: true, 'VueNodes.Enabled': look === 'new' }))
    await page.request.post(`${url}/api/settings/Comfy.${key}`, { data: JSON.stringify(data) })
  await page.goto(url, { waitUntil: 'domcontentloaded' })
  await page.waitForFunction(
    () => window.app?.extensionManager && window.app.graph && !document.querySelector('#splash-loader, .p-blockui-mask')
  )
  await page.waitForTimeout(500)
  found.errors.length = 0
  await page.evaluate((graph) => window.app.loadGraphData(graph, true, true, 'test'), JSON.parse(readFileSync(file, 'utf8')))
  await page.evaluate(`(({ ds }, { pos, size }) => {
    ds.scale = 1
    ds.offset[0] = 300 - pos[0]
    ds.offset[1] = 90 - pos[1]
    window.app.canvas.setDirty(true, true)
  })(window.app.canvas, ${NODE})`)
  found.before = await page.evaluate(STATE)
  found.ended = await page.evaluate(run)
  await page.waitForFunction(() => document.querySelector('iframe')?.contentWindow?.lyra?.store?.held?.size)
  const frame = page.frames().find((one) => one.url().includes('lyra-viewer'))
  await frame.evaluate('lyra.settled()')
  found.shown = await frame.evaluate('lyra.scene.moments.length')
  await frame.locator('#view').focus()
  await page.keyboard.down('KeyW')
  await page.waitForTimeout(500)
  await page.keyboard.up('KeyW')
  await frame.evaluate('lyra.settled()') // it glides on a little
  await page.keyboard.press('KeyK')
  await page.waitForFunction(`${STATE}.includes('"keyframes":[{')`)
  await frame.evaluate('lyra.settled()')
  await page.waitForTimeout(400) // until the view has told where it rests
  found.after = await page.evaluate(STATE)
  found.prompt = await page.evaluate(async () => Object.values((await window.app.graphToPrompt()).output))
  if (pictures) await page.screenshot({ path: join(pictures, `explore_${look}.png`) })
  await page.close()
  return found
}

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM_PATH || '/usr/bin/chromium', args: flags })
try {
  console.log(JSON.stringify({ old: await visit(browser, 'old'), new: await visit(browser, 'new') }))
} finally {
  await browser.close()
}
