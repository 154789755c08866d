// Opens workflows in ComfyUI's editor in headless Chromium and prints, as a JSON list, what the editor made of each.
//
//   node editor.mjs URL WORKFLOW... [--picture FILE [--crop all|ID,...]] [--run SECONDS] [--new-look]
//   node editor.mjs URL --templates CATEGORY [--picture FILE]
//
// A workflow in API form may say in _meta where a node stands (at) and its size; without one it is folded. --crop
// cuts the picture to all nodes, or to those of some ids. --run lets the server run a workflow while the editor
// is closed, which then shows what is kept.
//
// PLAYWRIGHT_CORE   folder whose node_modules hold playwright-core
// CHROMIUM_PATH     the browser, /usr/bin/chromium unless it says otherwise
//
// Printed: nodes (how many), missing (types that the editor does not know), covered (titles of nodes that lie on
// another), drawing (nodes, groups and the points that wires pass, as they are drawn), errors (what the page and its console said since the workflow was opened), refused (requests answered by
// 400 or more), prompt (the workflow in API form), run (null, or how a run ended); or templates (size of each picture
// in a category of the template dialog, by name), errors and refused. The page may speak to URL only.

import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { basename, join } from 'node:path'
import { parseArgs } from 'node:util'

const { positionals, values: options } = parseArgs({
  allowPositionals: true,
  options: {
    picture: { type: 'string' },
    crop: { type: 'string' },
    run: { type: 'string' },
    templates: { type: 'string' },
    'new-look': { type: 'boolean', default: false }
  }
})
const [url, ...files] = positionals
const { chromium } = createRequire(join(process.env.PLAYWRIGHT_CORE, 'package.json'))('playwright-core')

// 3D viewers draw in software; without it they log errors
const flags = ['--no-sandbox', '--use-gl=angle', '--use-angle=swiftshader', '--enable-unsafe-swiftshader']
const NOT_OURS = [
  /^404 \/(user\.css|api\/userdata)/, // absent in a new user's folder, which the editor expects
  /Failed to load resource/, // told apart by `refused`
  /Content Security Policy|net::ERR_FAILED/ // the page reached out, which neither the server nor we allow
]

async function open(browser, reports) {
  const page = await browser.newPage({ viewport: { width: 1800, height: 1000 } })
  page.setDefaultTimeout(180000) // of a machine with other work
  const home = new URL(url).origin
  const note = (kind, text) => {
    if (!NOT_OURS.some((known) => known.test(text))) reports.at(-1)?.[kind].push(text.slice(0, 500))
  }
  await page.route(/^https?:/, (route) => (route.request().url().startsWith(home) ? route.continue() : route.abort()))
  page.on('pageerror', (error) => note('errors', String(error)))
  page.on('console', (message) => message.type() === 'error' && note('errors', message.text()))
  page.on('response', (reply) => {
    if (reply.status() >= 400 && reply.url().startsWith(home))
      note('refused', `${reply.status()} ${reply.url().slice(home.length)}`)
  })
  const quiet = { TutorialCompleted: true, 'Minimap.Visible': false, 'Graph.CanvasInfo': false }
  const settings = { ...quiet, 'VueNodes.Enabled': options['new-look'] }
  for (const [setting, value] of Object.entries(settings))
    await page.request.post(`${home}/api/settings/Comfy.${setting}`, { data: JSON.stringify(value) })
  await page.goto(url, { waitUntil: 'domcontentloaded' })
  await page.waitForFunction(
    () => window.app?.extensionManager && window.app.graph && !document.querySelector('#splash-loader, .p-blockui-mask')
  )
  await page.waitForTimeout(500) // for the default workflow, which is opened first
  return page
}

const drawing = () => {
  const { graph } = window.app
  const wires = [...graph.links.values()].map((link) => {
    const points = []
    for (let { parentId } = link; parentId !== undefined; parentId = graph.reroutes.get(parentId).parentId)
      points.unshift([...graph.reroutes.get(parentId).pos])
    const [source, target] = [link.origin_id, link.target_id].map((id) => graph.getNodeById(id))
    const ends = [source.getOutputPos(link.origin_slot), target.getInputPos(link.target_slot)].map((end) => [...end])
    return [source.id, target.id, [ends[0], ...points, ends[1]]]
  })
  return {
    nodes: graph.nodes.map(({ id, type, pos, size }) => ({ id, type, pos: [...pos], size: [...size] })),
    groups: graph.groups.map(({ title, pos: [x, y], size: [w, h] }) => ({ title, bounding: [x, y, w, h] })),
    wires
  }
}

const inspect = () => {
  const known = window.LiteGraph.registered_node_types
  const inside = (graph) => graph.nodes.flatMap((node) => [node, ...(node.subgraph ? inside(node.subgraph) : [])])
  const nodes = inside(window.app.graph)
  const missing = nodes.filter((node) => !node.subgraph && (node.has_errors || !known[node.type]))
  const on = ({ pos: [x, y], size: [w, h] }, { pos: [left, top], size: [width, height] }) =>
    x < left + width && left < x + w && y - 30 < top + height && top - 30 < y + h // 30: the title
  const covered = window.app.graph.nodes.filter((node, i, all) => all.some((other, j) => j < i && on(node, other)))
  const types = [...new Set(missing.map((node) => node.type))]
  return { nodes: nodes.length, missing: types, covered: covered.map((node) => node.title) }
}

const fit = (crop) => {
  const { canvas, graph } = window.app
  const shown = graph.nodes.filter(({ id }) => !crop || crop === 'all' || crop.split(',').includes(String(id)))
  for (const node of graph.nodes) if (crop && /Note$/.test(node.type)) node.pos = [1e5, 1e5]
  const above = crop ? 60 : 90 // titles and badges, and of a whole graph the headings of groups
  const boxes = shown.map(({ pos: [x, y], size: [w, h], flags }) => (flags.collapsed ? [x, y - 60, x + 190, y] : [x, y - above, x + w, y + h]))
  const [left, top] = [0, 1].map((i) => Math.min(...boxes.map((box) => box[i])))
  const [right, bottom] = [2, 3].map((i) => Math.max(...boxes.map((box) => box[i])))
  const scale = Math.min((innerWidth - 120) / (right - left), (innerHeight - 165) / (bottom - top), 1)
  canvas.ds.scale = scale
  canvas.ds.offset[0] = 90 / scale - left
  canvas.ds.offset[1] = 95 / scale - top
  canvas.setDirty(true, true)
  return crop && { x: 80, y: 95, width: scale * (right - left) + 20, height: scale * (bottom - top) + 14 }
}

const show = ({ graph, name }) => window.app.loadGraphData(graph, true, true, name)

// a graph in API form: the editor arranges it, then each node goes where _meta says
const place = async ({ graph, name }) => {
  await window.app.loadApiJson(graph, name)
  await new Promise((done) => setTimeout(done, 1000)) // for what the editor does of itself
  for (const node of window.app.graph.nodes) {
    const { at, size } = graph[node.id]._meta
    node.pos = [...at]
    if (size) node.setSize(size)
    else node.flags.collapsed = true
  }
}

// Runs a workflow from a page that shows nothing: 3D viewers that draw in software leave nothing of a small machine to
// it. Said is what nodes wrote on themselves, which the server does not keep.
const runAlone = ([prompt, seconds]) =>
  new Promise((resolve) => {
    const said = []
    const end = (run) => resolve({ run, said })
    const socket = new WebSocket(`ws://${location.host}/ws?clientId=alone`)
    socket.binaryType = 'arraybuffer'
    socket.onmessage = ({ data }) => {
      if (typeof data !== 'string') {
        const [view, words] = [new DataView(data), (...range) => new TextDecoder().decode(data.slice(...range))]
        const name = 8 + view.getUint32(4) // a kind, how long the node's id is, the id, the text
        if (view.getUint32(0) === 3) said.push({ nodeId: words(8, name), text: words(name) })
        return
      }
      const { type, data: detail } = JSON.parse(data)
      if (/^execution_(success|error|interrupted)$/.test(type))
        end(detail.exception_message ? `${type}: ${detail.exception_message}` : type)
    }
    setTimeout(() => end(`no end within ${seconds} s`), seconds * 1000)
    socket.onopen = async () => {
      const body = JSON.stringify({ prompt, client_id: 'alone' })
      const headers = { 'Content-Type': 'application/json' }
      const reply = await fetch('/prompt', { method: 'POST', headers, body })
      if (!reply.ok) end(`refused: ${await reply.text()}`)
    }
  })

// the same from the editor, which shows what the server still has
const run = (seconds) =>
  new Promise((resolve) => {
    const { api } = window.app
    setTimeout(() => resolve(`no end within ${seconds} s`), seconds * 1000)
    for (const name of ['execution_success', 'execution_error', 'execution_interrupted'])
      api.addEventListener(name, ({ detail }) => resolve(detail?.exception_message ? `${name}: ${detail.exception_message}` : name))
    window.app.queuePrompt(0, 1).then((taken) => taken === false && resolve('refused'))
  })

async function load(page, workflow) {
  await page.evaluate(workflow.graph.nodes ? show : place, workflow)
  await page.waitForTimeout(1500)
}

async function look(page, report, workflow) {
  await load(page, workflow)
  Object.assign(report, await page.evaluate(inspect), { drawing: await page.evaluate(drawing), run: null })
  report.prompt = await page.evaluate(async () => (await window.app.graphToPrompt()).output)
}

// what a workflow that has run looks like in a fresh page
async function lookAfterRun(page, report, workflow, said) {
  await load(page, workflow)
  if (report.run === 'execution_success') report.run = await page.evaluate(run, Number(options.run))
  await page.evaluate((all) => all.forEach((one) => window.app.api.dispatchCustomEvent('progress_text', one)), said)
  await page.waitForTimeout(options.crop ? 25000 : 8000) // viewers load what was made
}

async function photograph(page) {
  const clip = await page.evaluate(fit, options.crop)
  await page.waitForTimeout(1000)
  await page.screenshot({ path: options.picture, ...(clip && { clip }) })
}

async function listTemplates(page, report) {
  await page.evaluate(() => window.app.extensionManager.command.execute('Comfy.BrowseTemplates'))
  await page.getByRole('dialog').getByText(options.templates, { exact: true }).first().click()
  const pictures = page.getByRole('dialog').locator('img')
  await pictures.first().waitFor({ timeout: 60000 })
  const seen = new Map() // the dialog holds those that are in view, and brings more at its end
  for (let before = -1; before !== seen.size || [...seen.values()].some(([width]) => !width); ) {
    before = seen.size // the caller's time ends what never does
    await page.waitForTimeout(3000)
    const shown = await pictures.evaluateAll((all) => all.map((one) => [one.alt, [one.naturalWidth, one.naturalHeight]]))
    for (const [name, size] of shown) if (size[0] || !seen.has(name)) seen.set(name, size)
    await pictures.last().hover()
    await page.mouse.wheel(0, 400)
  }
  report.templates = Object.fromEntries(seen)
  if (options.picture) await page.screenshot({ path: options.picture })
}

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM_PATH || '/usr/bin/chromium', args: flags })
const reports = []
try {
  let page = await open(browser, reports)
  const begin = () => {
    reports.push({ errors: [], refused: [] })
    return reports.at(-1)
  }
  if (options.templates) await listTemplates(page, begin())
  for (const file of files) {
    const report = begin()
    const workflow = { name: basename(file, '.json'), graph: JSON.parse(readFileSync(file, 'utf8')) }
    await look(page, report, workflow)
    if (options.run) {
      await page.close()
      const bare = await browser.newPage()
      await bare.goto(`${url}/system_stats`)
      const alone = await bare.evaluate(runAlone, [report.prompt, Number(options.run)])
      await bare.close()
      report.run = alone.run
      page = await open(browser, reports)
      await lookAfterRun(page, report, workflow, alone.said)
    }
    if (options.picture) await photograph(page)
  }
  console.log(JSON.stringify(reports))
} finally {
  await browser.close()
}
