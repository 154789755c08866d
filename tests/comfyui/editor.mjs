// Opens a workflow in ComfyUI's editor in headless Chromium and prints, as JSON, what the editor made of it.
//
//   node editor.mjs URL WORKFLOW [--picture FILE] [--run SECONDS] [--new-look]
//
// PLAYWRIGHT_CORE   folder whose node_modules hold playwright-core
// CHROMIUM_PATH     the browser, /usr/bin/chromium unless it says otherwise
//
// Printed: nodes (how many), missing (types that the editor does not know), errors (what the page and its console
// said since the workflow was opened), refused (requests answered by 400 or more), prompt (the workflow in API form),
// run (null, or how a run ended). The page may speak to URL only.

import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { parseArgs } from 'node:util'

const { positionals, values: options } = parseArgs({
  allowPositionals: true,
  options: { picture: { type: 'string' }, run: { type: 'string' }, 'new-look': { type: 'boolean', default: false } }
})
const [url, file] = positionals
const workflow = JSON.parse(readFileSync(file, 'utf8'))
const { chromium } = createRequire(join(process.env.PLAYWRIGHT_CORE, 'package.json'))('playwright-core')

// 3D viewers draw in software; without it they log errors
const flags = ['--no-sandbox', '--use-gl=angle', '--use-angle=swiftshader', '--enable-unsafe-swiftshader']
const NOT_OURS = [
  /^404 \/(user\.css|api\/userdata)/, // absent in a new user's folder, which the editor expects
  /Failed to load resource/, // told apart by `refused`
  /Content Security Policy|net::ERR_FAILED/ // the page reached out, which neither the server nor we allow
]

async function open(browser, report) {
  const page = await browser.newPage({ viewport: { width: 1800, height: 1000 } })
  const home = new URL(url).origin
  let opened = false
  const note = (list, text) => {
    if (opened && !NOT_OURS.some((known) => known.test(text))) list.push(text.slice(0, 500))
  }
  await page.route(/^https?:/, (route) => (route.request().url().startsWith(home) ? route.continue() : route.abort()))
  page.on('pageerror', (error) => note(report.errors, String(error)))
  page.on('console', (message) => message.type() === 'error' && note(report.errors, message.text()))
  page.on('response', (reply) => {
    if (reply.status() >= 400 && reply.url().startsWith(home))
      note(report.refused, `${reply.status()} ${reply.url().slice(home.length)}`)
  })
  // 3D viewers that draw in software all the time leave nothing of a small machine to the run
  await page.addInitScript(() => {
    const asap = window.requestAnimationFrame.bind(window)
    window.requestAnimationFrame = (draw) => (window.isRunning ? setTimeout(() => asap(draw), 2000) : asap(draw))
  })
  const settings = { TutorialCompleted: true, 'VueNodes.Enabled': options['new-look'], 'Minimap.Visible': false }
  for (const [setting, value] of Object.entries(settings))
    await page.request.post(`${home}/api/settings/Comfy.${setting}`, { data: JSON.stringify(value) })
  await page.goto(url, { waitUntil: 'domcontentloaded' })
  await page.waitForFunction(
    () => window.app?.extensionManager && window.app.graph && !document.querySelector('#splash-loader, .p-blockui-mask')
  )
  await page.waitForTimeout(500) // for the default workflow, which is opened first
  opened = true
  await page.evaluate((graph) => window.app.loadGraphData(graph, true, true, 'test'), workflow)
  await page.waitForTimeout(1500)
  return page
}

const inspect = () => {
  const known = window.LiteGraph.registered_node_types
  const inside = (graph) => graph.nodes.flatMap((node) => [node, ...(node.subgraph ? inside(node.subgraph) : [])])
  const nodes = inside(window.app.graph)
  const missing = nodes.filter((node) => !node.subgraph && (node.has_errors || !known[node.type]))
  return { nodes: nodes.length, missing: [...new Set(missing.map((node) => node.type))] }
}

const fit = () => {
  const { canvas, graph } = window.app
  const boxes = graph.nodes.map(({ pos: [x, y], size: [w, h] }) => [x, y - 90, x + w, y + h])
  const [left, top] = [0, 1].map((i) => Math.min(...boxes.map((box) => box[i])))
  const [right, bottom] = [2, 3].map((i) => Math.max(...boxes.map((box) => box[i])))
  const scale = Math.min((innerWidth - 120) / (right - left), (innerHeight - 145) / (bottom - top), 1)
  canvas.ds.scale = scale
  canvas.ds.offset[0] = 90 / scale - left
  canvas.ds.offset[1] = 95 / scale - top
  canvas.setDirty(true, true)
}

const run = (seconds) =>
  new Promise((resolve) => {
    const { api } = window.app
    window.isRunning = true
    setTimeout(() => resolve(`no end within ${seconds} s`), seconds * 1000)
    for (const name of ['execution_success', 'execution_error', 'execution_interrupted'])
      api.addEventListener(name, ({ detail }) => resolve(detail?.exception_message ? `${name}: ${detail.exception_message}` : name))
    window.app.queuePrompt(0, 1).then((taken) => taken === false && resolve('refused'))
  })

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM_PATH || '/usr/bin/chromium', args: flags })
try {
  const report = { errors: [], refused: [], run: null }
  const page = await open(browser, report)
  Object.assign(report, await page.evaluate(inspect))
  report.prompt = await page.evaluate(async () => (await window.app.graphToPrompt()).output)
  if (options.run) {
    report.run = await page.evaluate(run, Number(options.run))
    await page.evaluate(() => (window.isRunning = false))
    await page.waitForTimeout(8000) // viewers load what was made
  }
  if (options.picture) {
    await page.evaluate(fit)
    await page.waitForTimeout(1000)
    await page.screenshot({ path: options.picture })
  }
  console.log(JSON.stringify(report))
} finally {
  await browser.close()
}
