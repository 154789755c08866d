// Keys, pointer, wheel and touch move a camera: walking turns it where it stands, orbiting turns it around what is ahead.

import { about, add, column, dot, times, turned } from './math.mjs'

const STEEP = 0.995 // cosine of the angle to straight up or down that a look may reach
const MOVES = { KeyW: [0, 0, 1], KeyS: [0, 0, -1], KeyA: [-1, 0, 0], KeyD: [1, 0, 0], KeyQ: [0, 1, 0], KeyE: [0, -1, 0],
  ArrowUp: [0, 0, 1], ArrowDown: [0, 0, -1], ArrowLeft: [-1, 0, 0], ArrowRight: [1, 0, 0] }

// A camera turned by angles: yaw about the axis `down` of the world, pitch about its own right
export function look(camera, yaw, pitch, down) {
  const pitched = times(camera.r, about([1, 0, 0], pitch))
  const level = dot(column(pitched, 2), down)
  const steeper = Math.abs(level) > STEEP && Math.abs(level) > Math.abs(dot(column(camera.r, 2), down))
  return { ...camera, r: times(about(down, yaw), steeper ? camera.r : pitched) }
}

// The same about a point `focus` ahead, which stays where it is
export function orbit(camera, yaw, pitch, down, focus) {
  const target = add(camera.p, column(camera.r, 2), focus)
  const found = look(camera, yaw, pitch, down)
  return { ...found, p: add(target, column(found.r, 2), -focus) }
}

// Moved by [right, down, ahead] in its own axes
export const shift = (camera, by) => ({ ...camera, p: add(camera.p, turned(camera.r, by)) })

export class Controls {
  constructor(element, world) {
    Object.assign(this, { element, world, mode: 'orbit', speed: 1, held: new Set(), tapped: new Set(), pointers: new Map() })
    this.velocity = [0, 0, 0]
    element.addEventListener('pointerdown', (event) => this.down(event))
    element.addEventListener('pointermove', (event) => this.move(event))
    for (const end of ['pointerup', 'pointercancel', 'lostpointercapture'])
      element.addEventListener(end, ({ pointerId }) => this.pointers.delete(pointerId))
    element.addEventListener('wheel', (event) => this.wheel(event), { passive: false })
    element.addEventListener('contextmenu', (event) => event.preventDefault())
    addEventListener('blur', () => this.held.clear())
    addEventListener('keyup', ({ code }) => this.held.delete(code))
  }

  // Whether a key is one that moves
  key(event) {
    if (!MOVES[event.code]) return false
    this.held.add(event.code)
    this.tapped.add(event.code) // for one step at least, however slowly frames come
    this.fast = event.shiftKey
    return true
  }

  down(event) {
    this.element.setPointerCapture(event.pointerId)
    this.element.focus()
    this.pointers.set(event.pointerId, [event.clientX, event.clientY])
  }

  move(event) {
    const before = this.pointers.get(event.pointerId)
    if (!before) return
    const now = [event.clientX, event.clientY]
    if (this.pointers.size === 2) this.pinch(event.pointerId, before, now)
    else {
      const [dx, dy] = [now[0] - before[0], now[1] - before[1]]
      if (event.buttons & 6 || event.ctrlKey || (event.shiftKey && this.mode === 'orbit')) this.pan(dx, dy)
      else this.turn(dx, dy)
    }
    this.pointers.set(event.pointerId, now)
  }

  turn(dx, dy) {
    const { camera, down, focus, pixel } = this.world
    if (this.mode === 'orbit') {
      const angle = (2 * Math.PI) / 1400
      this.world.camera = orbit(camera, dx * angle, -dy * angle, down, focus)
    } else this.world.camera = look(camera, -dx * pixel, dy * pixel, down)
  }

  pan(dx, dy) {
    const { camera, focus, pixel } = this.world
    this.world.camera = shift(camera, [-dx * pixel * focus, -dy * pixel * focus, 0])
  }

  // Nearer by a factor; in orbit never through what is turned around
  dolly(factor) {
    const { camera, focus } = this.world
    this.world.camera = shift(camera, [0, 0, focus * (1 - factor)])
    if (this.mode === 'orbit') this.world.focus = focus * factor
  }

  wheel(event) {
    event.preventDefault()
    const lines = event.deltaMode === 1 ? 30 : 1
    this.dolly(Math.exp(Math.max(-240, Math.min(240, event.deltaY * lines)) / 900))
  }

  pinch(id, before, now) {
    const [[, other]] = [...this.pointers].filter(([pointer]) => pointer !== id)
    const gap = ([x, y]) => Math.max(10, Math.hypot(x - other[0], y - other[1]))
    this.pan((now[0] - before[0]) / 2, (now[1] - before[1]) / 2)
    this.dolly(gap(before) / gap(now))
  }

  // Fly on for `seconds`; true while something moves
  step(seconds) {
    const goal = [0, 0, 0]
    for (const code of new Set([...this.held, ...this.tapped])) MOVES[code].forEach((v, i) => (goal[i] += v))
    this.tapped.clear()
    const pace = this.world.reach * 0.6 * this.speed * (this.fast ? 3 : 1)
    const keep = Math.exp(-seconds * 12)
    this.velocity = this.velocity.map((v, i) => goal[i] * pace + (v - goal[i] * pace) * keep)
    if (Math.hypot(...this.velocity) < 1e-4 * pace) {
      this.velocity = [0, 0, 0]
      return false
    }
    this.world.camera = shift(this.world.camera, this.velocity.map((v) => v * seconds))
    return true
  }
}
