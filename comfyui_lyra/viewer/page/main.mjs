// The page: buttons and keys, the scene of this file or of an address, and a talk with the page around it.

import { Viewer } from './viewer.mjs'
import { fromPage, fromServer } from './store.mjs'
import { spline, toRows } from './math.mjs'

const SHADES = [[1, 1, 1], [0.08, 0.09, 0.1], [0.5, 0.5, 0.5]]
const ICONS = {
  play: 'M7 4l13 8-13 8z', pause: 'M7 4v16M17 4v16', loop: 'M17 2l4 4-4 4M3 11V9a3 3 0 013-3h15M7 22l-4-4 4-4M21 13v2a3 3 0 01-3 3H3',
  key: 'M12 3l8 9-8 9-8-9z', home: 'M3 11l9-8 9 8M6 9v11h12V9', shade: 'M12 3a9 9 0 100 18zM12 3a9 9 0 010 18',
  path: 'M4 19c6 0 3-14 9-14 5 0 3 9 7 9M4 19h.01M20 14h.01', picture: 'M3 5h18v14H3zM3 16l5-5 5 5 3-3 5 4M15 9h.01',
  save: 'M12 3v12M7 10l5 5 5-5M4 20h16', wide: 'M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5', ask: 'M9 9a3 3 0 114 3c-1 .5-1 1-1 2M12 18h.01',
  orbit: 'M12 9a3 3 0 100 6 3 3 0 000-6M3 12c0-3 18-3 18 0s-18 3-18 0', walk: 'M12 4h.01M12 8l-3 5 4 3v5M12 8l4 4M9 13l-3 7'
}
const icon = (name) => `<svg viewBox="0 0 24 24" aria-hidden="true"><path d="${ICONS[name]}"/></svg>`
const $ = (id) => document.getElementById(id)
const embedded = window.parent !== window

for (const button of document.querySelectorAll('[data-icon]')) button.innerHTML = icon(button.dataset.icon)

const fail = (error) => ($('note').textContent = String(error?.message ?? error))
let viewer
try {
  viewer = new Viewer($('view'), $('marks'), { changed: refresh, failed: fail, moved: tell })
} catch (error) {
  fail(error)
}

function refresh() {
  const { store, times, playing } = viewer
  if (!store) return
  const busy = store.held.size === 0 || !store.held.has(viewer.index)
  $('load').className = busy ? 'busy' : ''
  $('load').firstChild.style.width = `${100 * (store.held.size ? 1 : 0.1 + 0.9 * store.part)}%`
  if (!store.closed) $('note').textContent = store.held.size ? '' : 'Loading the scene'
  $('time').hidden = times.length < 2
  $('keys').className = `panel${times.length < 2 ? ' low' : ''}`
  $('play').innerHTML = icon(playing ? 'pause' : 'play')
  $('slide').min = times[0]
  $('slide').max = times[0] + viewer.length - (playing ? 0 : viewer.length - (times.at(-1) - times[0]))
  $('slide').value = viewer.clock
  $('clock').textContent = `${((times[viewer.index] - times[0]) / viewer.scene.fps).toFixed(2)} s`
  $('loop').classList.toggle('on', viewer.loop)
  $('lines').classList.toggle('on', viewer.visible)
  $('mode').innerHTML = icon(viewer.controls.mode)
  chips()
}

function chips() {
  const { keys } = viewer
  if ($('keys').dataset.count === String(keys.length)) return
  $('keys').dataset.count = keys.length
  $('keys').hidden = !keys.length
  const button = (text, title, action, kind = '') => {
    const made = document.createElement('button')
    made.innerHTML = text
    made.title = title
    made.className = kind
    made.onclick = action
    return made
  }
  $('keys').replaceChildren(
    ...keys.map((key, i) => button(i + 1, `Look from keyframe ${i + 1}; with Shift take it away`, (event) => {
      if (event.shiftKey) viewer.removeKey(i)
      else viewer.camera = key
    }, 'chip')),
    ...(keys.length > 1 ? [button(icon('play'), 'Fly through the keyframes (G)', () => viewer.flyKeys())] : []),
    button('×', 'Take the last keyframe away (Backspace)', () => viewer.removeKey())
  )
}

function show(scene, get, state) {
  document.title = scene.title || 'Lyra'
  $('title').textContent = embedded ? '' : scene.title
  viewer.frame = embedded
  viewer.open(scene, get, state)
  const named = scene.paths.map((path, i) => new Option(path.name, i))
  $('path').replaceChildren(new Option('paths', '', true, true), ...named)
  $('path').hidden = !named.length
  viewer.keysChanged()
}

function save(blob, name) {
  const link = document.createElement('a')
  link.href = URL.createObjectURL(blob)
  link.download = name
  link.click()
  setTimeout(() => URL.revokeObjectURL(link.href), 1000)
}

// The path through the keyframes, or where one stands, as the pack's camera files
function camerasFile() {
  const { keys, start, scene } = viewer
  const { width, height, K } = start
  const path = keys.length ? spline(keys) : () => viewer.camera
  const frames = Array.from({ length: keys.length > 1 ? 120 : 1 }, (_, i) => {
    const camera = path((i / 119) * (keys.length - 1))
    const rows = toRows(camera)
    return { c2w: [0, 4, 8, 12].map((at) => rows.slice(at, at + 4)), K: [K[0] * camera.zoom, K[1] * camera.zoom, K[2], K[3]] }
  })
  const paths = [{ name: 'keyframes', fps: scene.fps, width, height, frames }]
  return new Blob([JSON.stringify({ format: 'lyra-cameras', version: 1, axes: 'opencv', paths })], { type: 'application/json' })
}

const step = (by) => {
  viewer.play(false)
  const n = viewer.times.length
  viewer.seek(viewer.times[(viewer.index + by + n) % n])
}
const zoom = (factor) => (viewer.camera = { ...viewer.camera, zoom: Math.min(8, Math.max(0.25, viewer.camera.zoom * factor)) })
const actions = {
  play: () => viewer.play(!viewer.playing),
  loop: () => (viewer.loop = !viewer.loop),
  mode: () => (viewer.controls.mode = viewer.controls.mode === 'orbit' ? 'walk' : 'orbit'),
  key: () => viewer.addKey(),
  home: () => {
    viewer.focus = viewer.scene.focus
    viewer.camera = viewer.first
  },
  shade: () => {
    const at = SHADES.findIndex((shade) => String(shade) === String(viewer.background))
    viewer.background = SHADES[(at + 1) % SHADES.length]
    viewer.dirty = true
  },
  lines: () => {
    viewer.visible = !viewer.visible
    viewer.dirty = true
  },
  picture: async () => save(await viewer.picture(), `${viewer.scene.title || 'lyra'}.png`),
  cameras: () => save(camerasFile(), 'cameras.json'),
  wide: () => (document.fullscreenElement ? document.exitFullscreen() : document.documentElement.requestFullscreen()),
  ask: () => ($('help').open ? $('help').close() : $('help').showModal())
}
const KEYS = {
  Space: 'play', KeyL: 'loop', KeyO: 'mode', KeyK: 'key', KeyR: 'home', KeyB: 'shade', KeyM: 'lines', KeyF: 'wide',
  Comma: () => step(-1), Period: () => step(1), Backspace: () => viewer.keys.length && viewer.removeKey(), KeyG: () => viewer.flyKeys(),
  KeyP: () => viewer.flyPath(0), KeyH: () => document.body.classList.toggle('quiet'), Slash: 'ask',
  BracketLeft: () => zoom(1 / 1.1), BracketRight: () => zoom(1.1), Escape: () => (viewer.flight = null)
}

function act(what) {
  if (typeof what === 'string') actions[what]()
  else what()
  refresh()
}

function press(event) {
  if (!viewer?.scene || event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === 'SELECT') return
  const digit = /^Digit([1-9])$/.exec(event.code)
  const pace = { '+': 1.5, '=': 1.5, '-': 1 / 1.5 }[event.key]
  if (event.key === '?') act('ask')
  else if ($('help').open) return
  else if (digit) viewer.flyPath(digit[1] - 1)
  else if (pace) viewer.controls.speed = Math.min(20, Math.max(0.05, viewer.controls.speed * pace))
  else if (event.target.type === 'range' && event.code.startsWith('Arrow')) return
  else if (viewer.controls.key(event)) event.preventDefault()
  else if (KEYS[event.code] && !(event.code === 'Slash' && !event.shiftKey)) act(KEYS[event.code])
  else return
  if (event.code === 'Space') event.preventDefault()
}

let told
// Tell the page around this one of a view, once it has rested
function tell() {
  if (!embedded || !viewer.scene) return
  clearTimeout(told)
  told = setTimeout(() => window.parent.postMessage({ lyra: 'state', state: viewer.state }, location.origin), 250)
}

// An address of this server, whoever wrote it down
function own(address) {
  const url = new URL(address, location.href)
  if (url.origin !== location.origin) throw new Error('scenes are taken from this server only')
  return url
}

async function begin() {
  const inside = $('scene')
  const address = new URLSearchParams(location.search).get('scene')
  const hint = /Mobi|Android/.test(navigator.userAgent) || navigator.deviceMemory <= 4
  if (hint) viewer.budget = 4e8
  if (inside) return show(JSON.parse(inside.textContent), fromPage())
  if (address) {
    const url = own(address)
    const scene = await (await fetch(url)).json()
    return show(scene, fromServer(scene, url))
  }
  fail(embedded ? 'Run the node to see its scene' : 'no scene is named')
  if (embedded) window.parent.postMessage({ lyra: 'ready' }, location.origin)
}

if (viewer) {
  for (const [id, action] of Object.entries(actions))
    $(id).onclick = () => {
      if (viewer.scene) act(action)
      if (id !== 'ask') $('view').focus()
    }
  $('slide').oninput = ({ target }) => {
    const clock = Number(target.value) // before stopping sets it back
    viewer.play(false)
    viewer.seek(clock)
  }
  $('slide').onchange = tell
  $('speed').onchange = ({ target }) => (viewer.speed = Number(target.value))
  $('path').onchange = ({ target }) => {
    if (target.value !== '') viewer.flyPath(Number(target.value))
    target.value = ''
    $('view').focus()
  }
  $('help').onclick = ({ target }) => target === $('help') && $('help').close()
  addEventListener('keydown', press)
  addEventListener('message', ({ data, source, origin }) => {
    if (source !== window.parent || origin !== location.origin) return
    if (data?.lyra === 'note') fail(data.text)
    if (data?.lyra === 'scene') show(data.scene, fromServer(data.scene, location.href), data.state)
  })
  window.lyra = viewer
  begin().catch(fail)
}
