// The scene as it is seen: camera, moment, flights, keyframes, and the loop that draws when something has changed.

import { between, column, fromRows, lens, spline, toRows } from './math.mjs'
import { Controls } from './controls.mjs'
import { Marks } from './marks.mjs'
import { Painter } from './draw.mjs'
import { ROOMY, Store } from './store.mjs'
import { makeSorter } from './sort.mjs'

const SLOW = 45 // ms a frame above which moving pictures are drawn smaller
const KEY_SECONDS = 2 // of a flight from keyframe to keyframe

export class Viewer {
  constructor(canvas, marks, events) {
    this.canvas = canvas
    this.events = events // changed(), failed(error)
    this.painter = new Painter(canvas)
    this.marks = new Marks(marks)
    this.sorter = makeSorter()
    this.sorter.onmessage = ({ data }) => this.sorted(data)
    this.budget = ROOMY
    this.keys = []
    this.visible = true
    this.playing = false
    this.loop = true
    this.speed = 1
    this.sharp = 1 // share of the full size that is drawn while something moves
    this.waiting = []
    this.controls = new Controls(canvas, this)
    canvas.addEventListener('webglcontextlost', (event) => {
      event.preventDefault()
      events.failed(new Error('the graphics card was taken away; load the page again'))
    })
    new ResizeObserver(() => this.resize()).observe(canvas)
  }

  // Show another scene; `get` fetches its moments
  open(scene, get, state = {}) {
    this.store?.close()
    this.scene = scene
    const { start } = scene
    this.start = { ...start, K: start.K[0], c2w: start.c2w[0] }
    this.first = fromRows(this.start.c2w)
    this.down = column(this.first.r, 1)
    this.reach = this.focus = scene.focus
    this.background = scene.background
    this.paths = scene.paths.map((path) => path.c2w.map((c2w, i) => fromRows(c2w, this.zoomOf(path, i))))
    this.times = scene.moments.map(({ time }) => time)
    const steps = this.times.slice(1).map((time, i) => time - this.times[i])
    this.length = (this.times.at(-1) - this.times[0]) + (steps.length ? steps.sort((a, b) => a - b)[steps.length >> 1] : 1)
    this.clock = this.times[0]
    this.painter.setOrder(new Uint32Array(0))
    this.store = new Store(scene, get, {
      painter: this.painter,
      worker: this.sorter,
      budget: this.budget,
      changed: () => {
        this.unsorted = true
        this.events.changed()
      },
      failed: this.events.failed
    })
    this.flight = null
    this.seek(this.times[0])
    this.restore(state)
    if (!this.running) requestAnimationFrame((now) => this.tick(now))
    this.running = true
  }

  zoomOf(path, i) {
    return path.K[i][1] / path.height / (this.start.K[1] / this.start.height)
  }

  get camera() {
    return this.seen
  }

  // Set by controls: the person looks around, so a flight ends
  set camera(camera) {
    this.flight = null
    this.look(camera)
    this.events.moved?.()
  }

  look(camera) {
    this.seen = camera
    this.unsorted = this.dirty = true
    this.moved = performance.now()
  }

  get lens() {
    return lens(this.start, this.seen.zoom, this.canvas.width, this.canvas.height)
  }

  // Angle of one pixel as the pointer counts them
  get pixel() {
    return devicePixelRatio / this.lens.focal[0]
  }

  get index() {
    const after = this.times.findIndex((time) => time > this.clock + 1e-6)
    return after < 0 ? this.times.length - 1 : Math.max(0, after - 1)
  }

  // What is kept of a view: camera, moment, keyframes
  get state() {
    const plain = (camera) => ({ c2w: toRows(camera).map((v) => +v.toFixed(7)), zoom: +camera.zoom.toFixed(5) })
    return { camera: plain(this.seen), moment: this.index, keyframes: this.keys.map(plain) }
  }

  restore({ camera, moment, keyframes }) {
    this.keys = (keyframes ?? []).map(({ c2w, zoom }) => fromRows(c2w, zoom))
    if (moment > 0) this.seek(this.times[Math.min(moment, this.times.length - 1)])
    this.look(camera ? fromRows(camera.c2w, camera.zoom) : this.first)
    this.events.changed()
  }

  seek(clock) {
    this.clock = clock
    this.store.want(this.index, this.playing)
    this.unsorted = this.dirty = true
    this.events.changed()
  }

  play(on) {
    this.playing = on && this.times.length > 1
    if (this.playing && this.clock >= this.times[0] + this.length - 1e-6) this.clock = this.times[0]
    this.store.want(this.index, this.playing)
    this.events.changed()
  }

  // Fly through cameras, so many a second
  fly(cameras, rate) {
    const curve = (t) => between(cameras[Math.floor(t)], cameras[Math.min(Math.floor(t) + 1, cameras.length - 1)], t % 1)
    this.flight = { at: cameras.keys ? curve : cameras, last: cameras.length - 1, rate, t: 0 }
  }

  flyPath(index) {
    if (this.paths[index]) this.fly(this.paths[index], this.scene.paths[index].fps)
  }

  flyKeys() {
    if (this.keys.length > 1) this.flight = { at: spline(this.keys), last: this.keys.length - 1, rate: 1 / KEY_SECONDS, t: 0 }
  }

  addKey() {
    this.keys.push(this.seen)
    this.keysChanged()
  }

  removeKey(index = this.keys.length - 1) {
    this.keys.splice(index, 1)
    this.keysChanged()
  }

  keysChanged() {
    const path = spline(this.keys)
    const steps = this.keys.length > 1 ? 24 * (this.keys.length - 1) : -1
    this.curve = Array.from({ length: steps + 1 }, (_, i) => path(i / 24).p)
    this.dirty = true
    this.events.changed()
    this.events.moved?.()
  }

  resize() {
    this.ratio = Math.min(devicePixelRatio, 2)
    for (const canvas of [this.canvas, this.marks.canvas]) {
      canvas.width = Math.max(1, Math.round(canvas.clientWidth * this.ratio))
      canvas.height = Math.max(1, Math.round(canvas.clientHeight * this.ratio))
    }
    this.dirty = true
  }

  tick(now) {
    requestAnimationFrame((next) => this.tick(next))
    const seconds = Math.min(0.1, (now - (this.before ?? now)) / 1000)
    this.before = now
    this.controls.step(seconds)
    if (this.playing) this.advance(seconds)
    if (this.flight) this.follow(seconds)
    if (this.unsorted && !this.sorting) this.sort()
    const still = now - (this.moved ?? 0) > 150 && !this.playing
    if (still && this.drawnAt < 1) this.dirty = true
    if (this.dirty) this.draw(still ? 1 : this.sharp)
    this.adapt(now, still)
    if (!this.unsorted && !this.sorting && !this.dirty && this.store.shown === this.index && this.drawnAt === 1 && still)
      this.waiting.splice(0).forEach((done) => done())
  }

  // Smaller pictures while frames take long, full size again when they do not
  adapt(now, still) {
    if (still) this.pace = undefined
    else {
      const took = now - (this.last ?? now)
      this.pace = this.pace === undefined || took > 1000 ? undefined : 0.8 * this.pace + 0.2 * took
      this.pace ??= 16
      if (this.pace > SLOW) [this.sharp, this.pace] = [Math.max(0.35, this.sharp * 0.8), 25]
      else if (this.pace < 18 && this.sharp < 1) this.sharp = Math.min(1, this.sharp * 1.02)
    }
    this.last = now
  }

  advance(seconds) {
    const [first, end] = [this.times[0], this.times[0] + this.length]
    let clock = this.clock + seconds * this.scene.fps * this.speed
    if (clock >= end) clock = this.loop ? first + ((clock - first) % this.length) : end
    const before = this.index
    this.clock = clock
    if (this.index !== before) {
      this.store.want(this.index, true)
      this.unsorted = true
    }
    if (clock >= end && !this.loop) this.play(false)
    this.events.changed()
  }

  follow(seconds) {
    const { flight } = this
    flight.t = Math.min(flight.last, flight.t + seconds * flight.rate * this.speed)
    this.look(flight.at(flight.t))
    if (flight.t >= flight.last) {
      this.flight = null
      this.events.moved?.()
    }
  }

  // Ask for the order of the moment that is wanted, or until it is there that of what is seen
  sort() {
    const id = this.store.held.has(this.index) ? this.index : this.store.shown
    if (!this.store.held.has(id)) return
    const { near, far } = this.scene
    this.unsorted = false
    this.sorting = this.store
    this.sorter.postMessage({ id, axis: column(this.seen.r, 2), eye: this.seen.p, near, far })
  }

  sorted({ id, order }) {
    const current = this.sorting === this.store && this.store.held.has(id)
    this.sorting = null
    if (!current) {
      this.unsorted = true
      return
    }
    this.store.shown = id
    this.painter.setOrder(order)
    this.dirty = true
  }

  draw(share) {
    const { width, height } = this.canvas
    const size = [width, height].map((side) => Math.max(1, Math.round(side * share)))
    const view = this.lens
    this.painter.draw(this.store.held.get(this.store.shown), this.seen, lens(this.start, this.seen.zoom, ...size), this.background)
    this.marks.draw({
      camera: this.seen, lens: view, start: this.start, ratio: this.ratio, reach: this.reach, frame: this.frame,
      visible: this.visible, keys: this.keys, curve: this.curve ?? [], paths: this.visible ? this.lines : []
    })
    this.dirty = false
    this.drawnAt = share
  }

  get lines() {
    return this.paths.map((path) => path.map(({ p }) => p))
  }

  // Resolves when what is asked for is drawn at full size
  settled() {
    return new Promise((done) => this.waiting.push(done))
  }

  // The picture alone as a PNG
  picture() {
    this.draw(1)
    return new Promise((done) => this.canvas.toBlob(done))
  }
}
