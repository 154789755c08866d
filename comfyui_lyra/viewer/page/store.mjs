// Moments: fetched nearest in time first, held within a memory bound, the farthest let go for nearer ones.

import { inflate, unpack } from './unpack.mjs'

const COST = 32 // bytes a splat: texture, places of the worker, order
export const ROOMY = 1.5e9

// Which moment to load next, if any, and which to let go of; null where all is well. `held` is a Set of indices, `sizes`
// bytes of each, `wanted` what is to be seen, `kept` what is seen now.
export function plan(held, sizes, wanted, kept, budget, playing) {
  const n = sizes.length
  const away = (i) => (playing ? (i - wanted + n) % n : Math.abs(i - wanted))
  const missing = sizes.map((_, i) => i).filter((i) => !held.has(i))
  const next = missing.length ? missing.reduce((best, i) => (away(i) < away(best) ? i : best)) : null
  const spare = [...held].filter((i) => i !== kept && i !== wanted).sort((a, b) => away(b) - away(a))
  let used = [...held].reduce((sum, i) => sum + sizes[i], 0)
  const drop = []
  const tooMuch = () => used > budget || (next !== null && used + sizes[next] > budget && away(spare[0]) > away(next))
  while (spare.length && tooMuch()) {
    drop.push(spare.shift())
    used -= sizes[drop.at(-1)]
  }
  const fits = next !== null && (next === wanted || used + sizes[next] <= budget)
  return fits || drop.length ? { next: fits ? next : null, drop } : null
}

export class Store {
  constructor(scene, get, { painter, worker, budget, changed, failed }) {
    Object.assign(this, { scene, get, painter, worker, budget, changed, failed })
    this.sizes = scene.moments.map(({ splats }) => splats * COST)
    this.held = new Map()
    this.shown = -1
    this.closed = false
    this.part = 0
  }

  want(index, playing) {
    this.wanted = index
    this.playing = playing
    this.load()
  }

  async load() {
    if (this.loading || this.closed) return
    const todo = plan(new Set(this.held.keys()), this.sizes, this.wanted, this.shown, this.budget, this.playing)
    if (!todo) return
    todo.drop.forEach((index) => this.drop(index))
    if (todo.next === null) return
    this.loading = true
    try {
      const bytes = await this.get(todo.next, (part) => this.changed((this.part = part)))
      const moment = unpack(await inflate(bytes))
      if (this.closed) return
      this.held.set(todo.next, this.painter.hold(moment))
      this.worker.postMessage({ id: todo.next, add: moment }, [moment.words.buffer, moment.chunks.buffer])
      this.part = 0
      this.changed()
    } catch (error) {
      this.closed = true
      this.failed(error)
    } finally {
      this.loading = false
    }
    this.load()
  }

  drop(index) {
    this.painter.release(this.held.get(index))
    this.held.delete(index)
    this.worker.postMessage({ id: index, drop: true })
  }

  close() {
    this.closed = true
    for (const index of [...this.held.keys()]) this.drop(index)
  }
}

// What fetches a scene's moments: from the page itself, or from addresses relative to `base`
export const fromPage = () => async (index) => {
  const text = document.getElementById(`moment-${index}`).textContent
  return new Uint8Array(await (await fetch(`data:application/octet-stream;base64,${text}`)).arrayBuffer())
}

export const fromServer = (scene, base) => async (index, progress) => {
  const { url, bytes } = scene.moments[index]
  const reply = await fetch(new URL(url, base))
  if (!reply.ok) throw new Error(`moment ${index + 1}: the server answers ${reply.status}`)
  const parts = []
  let got = 0
  for (const reader = reply.body.getReader(); ; ) {
    const { done, value } = await reader.read()
    if (done) break
    parts.push(value)
    got += value.length
    if (bytes) progress(got / bytes)
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer())
}
