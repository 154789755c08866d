// Explore Splats: the viewer's page in the node. What is done in it is written into the widget `state`.

import { app } from '../../scripts/app.js'
import { api } from '../../scripts/api.js'

const NAME = 'lyra.explore'
const PAGE = '/extensions/lyra-viewer/index.html'
const SIZE = [560, 640]
const LEAST = 240 // pixels that the view is high

const viewOf = ({ subfolder, type }, filename) => api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type })}`)

// The scene's JSON with an address of this server for each moment
async function fetchScene(shown) {
  const reply = await fetch(viewOf(shown, shown.filename))
  if (!reply.ok) throw new Error('the scene is gone; run the node again')
  const scene = await reply.json()
  for (const moment of scene.moments) moment.url = viewOf(shown, moment.url)
  return scene
}

function parsed(text) {
  try {
    return JSON.parse(text) ?? {}
  } catch {
    return {}
  }
}

function addView(node) {
  const state = node.widgets.find((widget) => widget.name === 'state')
  state.hidden = state.options.hidden = true
  const frame = document.createElement('iframe')
  frame.src = api.fileURL(PAGE)
  frame.title = 'Explore Splats'
  frame.allow = 'fullscreen'
  Object.assign(frame.style, { width: '100%', height: '100%', minHeight: `${LEAST}px`, border: '0', borderRadius: '8px' })
  const widget = node.addDOMWidget('view', 'lyra_view', frame, { serialize: false, hideOnZoom: false, getMinHeight: () => LEAST })
  widget.serialize = false

  let ready = false
  const show = async (shown) => {
    if (!shown || !ready) return
    try {
      const scene = await fetchScene(shown)
      frame.contentWindow?.postMessage({ lyra: 'scene', scene, state: parsed(state.value) }, location.origin)
    } catch (error) {
      frame.contentWindow?.postMessage({ lyra: 'note', text: error.message }, location.origin)
    }
  }
  const listen = ({ source, origin, data }) => {
    if (source !== frame.contentWindow || origin !== location.origin) return
    if (data?.lyra === 'ready') {
      ready = true // also when the editor has moved the frame, which loads it anew
      show(node.lyraView)
    } else if (data?.lyra === 'state') state.value = JSON.stringify(data.state)
  }
  window.addEventListener('message', listen)
  const [executed, removed] = [node.onExecuted, node.onRemoved]
  node.onExecuted = function (output) {
    executed?.apply(this, arguments)
    if (output?.lyra_view?.[0]) show((node.lyraView = output.lyra_view[0]))
  }
  node.onRemoved = function () {
    removed?.apply(this, arguments)
    window.removeEventListener('message', listen)
  }
  node.setSize([Math.max(node.size[0], SIZE[0]), Math.max(node.size[1], SIZE[1])])
}

// The editor may serve this folder under two names; one of them is enough
if (!app.extensions.some(({ name }) => name === NAME))
  app.registerExtension({
    name: NAME,
    nodeCreated(node) {
      if (node.constructor.comfyClass === 'LyraExploreSplats') addView(node)
    }
  })
